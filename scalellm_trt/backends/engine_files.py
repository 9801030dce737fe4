"""What `trtllm-build` left in a directory: is it whole, of the right version, and what a service must know of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, cast

from scalellm_trt.backends.gpu_machine import same_release
from scalellm_trt.errors import ArtefactError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from scalellm_trt.plan import Plan

CONFIG_NAME: Final = "config.json"
LogitsDtype = Literal["float16", "float32"]
LIMITS: Final = ("max_batch_size", "max_input_len", "max_seq_len", "max_num_tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """What an engine's config.json says.

    Attributes:
        version: of the TensorRT-LLM that built it; another one refuses to load it.
        logits_dtype: type of the logits tensors; config.pbtxt must name the same.
        world_size: number of ranks.
        limits: by their names in build_config.
    """

    version: str
    logits_dtype: LogitsDtype
    world_size: int
    limits: Mapping[str, int]


def rank_file(rank: int) -> str:
    """Return the name of a rank's engine."""
    return f"rank{rank}.engine"


def read_config(directory: Path) -> EngineConfig:
    """Read an engine's config.json.

    Raises:
        ArtefactError: it is missing, or is not the configuration of an engine.
    """
    path = directory / CONFIG_NAME
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        pretrained, build = raw["pretrained_config"], raw["build_config"]
        logits_dtype = pretrained["logits_dtype"]
        if logits_dtype not in ("float16", "float32"):
            message = f"{path}: logits_dtype is {logits_dtype!r}, found float16 or float32 in every engine so far"
            raise ArtefactError(message)
        return EngineConfig(
            version=str(raw["version"]),
            logits_dtype=cast("LogitsDtype", logits_dtype),
            world_size=int(pretrained.get("mapping", {}).get("world_size", 1)),
            limits={name: int(build[name]) for name in LIMITS if build.get(name) is not None},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        message = f"{path}: cannot be read as an engine's configuration: {error!r}"
        raise ArtefactError(message, hint="Run `scalellm-trt build` again.") from error


def problems(directory: Path, plan: Plan, tensorrt_llm: str) -> list[str]:
    """Say what is missing or wrong in a directory that should hold `plan`'s engine."""
    ranks = [directory / rank_file(rank) for rank in range(plan.world_size)]
    wrong = [f"{path.name} is missing" for path in ranks if not path.is_file()]
    wrong += [f"{path.name} is empty" for path in ranks if path.is_file() and path.stat().st_size == 0]
    try:
        config = read_config(directory)
    except ArtefactError as error:
        return [*wrong, error.message]
    if not same_release(config.version, tensorrt_llm):
        wrong.append(f"config.json is of TensorRT-LLM {config.version}, the toolchain has {tensorrt_llm}")
    if config.world_size != plan.world_size:
        wrong.append(f"config.json is of {config.world_size} rank(s), the plan has {plan.world_size}")
    for name, found in config.limits.items():
        wanted = getattr(plan.limits, name)
        # max_input_len means nothing with packed inputs, and builders raise it to max_seq_len.
        if found != wanted and name != "max_input_len":
            wrong.append(f"config.json has {name} {found}, the plan has {wanted}")
    return wrong

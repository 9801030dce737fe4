"""A plan as flat keys: all of it for its digest, a stage's share of it for that stage's cache key."""

from __future__ import annotations

import fnmatch
import json
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from scalellm_trt import facts
from scalellm_trt.artefacts import digest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scalellm_trt.artefacts.manifest import Scalar, StageName
    from scalellm_trt.plan.types import Plan


def stage_names(plan: Plan) -> tuple[StageName, ...]:
    """Return the build stages of the plan's toolchain, in order."""
    return tuple(facts.toolchains()[plan.toolchain].stages)  # type: ignore[arg-type]  # checked by tests/unit/facts


def flatten(plan: Plan) -> dict[str, Scalar]:
    """Return everything that decides what is built, by the recipe's dotted keys.

    Left out: where the model lies on this disk, its shape (its digest stands for it; a service is also told the
    token ids that it needs), and what is only told to people: budgets and decisions.
    """
    flat: dict[str, Scalar] = {
        "name": plan.name,
        "model.source": plan.model.source,
        "model.revision": plan.model.revision,
        "model.digest": plan.model.digest,
        "model.dtype": plan.dtype,
        "model.vocab_size": plan.spec.vocab_size,
        "model.bos_token_id": plan.spec.bos_token_id,
        "model.eos_token_ids": ",".join(str(token_id) for token_id in plan.spec.eos_token_ids),
        "hardware": plan.hardware,
        "backend": plan.backend,
        "toolchain": plan.toolchain,
        "parallel.tp_size": plan.tp_size,
        "parallel.pp_size": plan.pp_size,
        "services": plan.services,
    }
    for section in ("quantization", "limits", "serving"):
        _flatten_into(flat, section, getattr(plan, section))
    return flat


def stage_inputs(plan: Plan, stage: StageName) -> dict[str, Scalar]:
    """Return the keys of the plan that `stage` depends on, as its toolchain row declares them.

    What the stages before it made, and the tools' versions, are the caller's to add.
    """
    patterns = facts.toolchains()[plan.toolchain].stages[stage]
    flat = flatten(plan)
    return {key: value for key, value in flat.items() if any(fnmatch.fnmatchcase(key, p) for p in patterns)}


def plan_digest(plan: Plan) -> str:
    """Return the SHA-256 (hex) over everything that decides what is built; the same on every machine."""
    return digest.of_value(flatten(plan))


def to_json(plan: Plan) -> str:
    """Return the whole plan with its digest as JSON text, budgets and decisions included.

    The same plan gives the same text: free disk space changes with every command, so it is left out.
    """
    body = asdict(plan)
    for budget, raw in zip(plan.budgets, body["budgets"], strict=True):
        raw["total_bytes"] = budget.total_bytes
        if budget.place == "disk":
            del raw["available_bytes"]
        else:
            raw["fits"] = budget.fits
    return json.dumps({"digest": plan_digest(plan), **body}, indent=2, default=_jsonable) + "\n"


def _flatten_into(flat: dict[str, Scalar], prefix: str, value: object) -> None:
    if is_dataclass(value):
        for field in fields(value):
            _flatten_into(flat, f"{prefix}.{field.name}", getattr(value, field.name))
    elif hasattr(value, "model_dump"):
        dumped: Mapping[str, object] = value.model_dump()
        for name, item in dumped.items():
            _flatten_into(flat, f"{prefix}.{name}", item)
    elif value is None or isinstance(value, str | int | float | bool):
        flat[prefix] = value
    else:
        message = f"{prefix} is no scalar: {value!r}"
        raise TypeError(message)


def _jsonable(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "model_dump"):
        return value.model_dump()
    message = f"no JSON for {type(value).__name__}"
    raise TypeError(message)

"""A checkpoint directory in, everything that is wrong with it out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from scalellm_trt.checkpoint import config as checkpoint_config
from scalellm_trt.checkpoint.dtypes import FLOAT_DTYPES, is_finite, to_float32
from scalellm_trt.checkpoint.layout import kv_scale_name
from scalellm_trt.checkpoint.shards import num_ranks, rank_problems, rank_shards
from scalellm_trt.checkpoint.tensor_file import TensorFile
from scalellm_trt.errors import ArtefactError, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from scalellm_trt.checkpoint.config import CheckpointConfig
    from scalellm_trt.checkpoint.shards import Shard
    from scalellm_trt.checkpoint.tensor_file import TensorLayout
    from scalellm_trt.model_spec import ModelSpec

_REBUILD: Final = "Build the checkpoint again."
_SCALE_SUFFIX: Final = "_scaling_factor"
_SCALE_SUFFIXES: Final = (_SCALE_SUFFIX, f"{_SCALE_SUFFIX}_2")
_PREQUANT_SUFFIX: Final = ".prequant_scaling_factor"
_CHUNK_ELEMENTS: Final = 1 << 21


def verify(directory: Path, spec: ModelSpec | None = None, *, read_weights: bool = True) -> list[Problem]:
    """Return everything that is wrong with the checkpoint in `directory`; an empty list means that it is sound.

    Args:
        directory: holds config.json and a rankN.safetensors for each rank.
        spec: the model that it was made from; its config is compared with it field by field.
        read_weights: also read every 16-bit and FP8 weight and look for NaN and infinity, at the speed of the disk.
            Scales are always read.

    Raises:
        ArtefactError: config.json or a file's header cannot be read at all.
        UnsupportedError: a model or format that we do not have.
    """
    config = checkpoint_config.read(directory)
    problems = checkpoint_config.changed_fields(directory)
    if spec is not None:
        problems += checkpoint_config.differences(config, spec, directory / "config.json")
    if uneven := rank_problems(config):
        return problems + uneven
    ranks = [
        (TensorFile(directory / f"rank{rank}.safetensors"), rank_shards(config, rank))
        for rank in range(num_ranks(config))
    ]
    for file, shards in ranks:
        problems += _layout_problems(file, {name: shard.layout for name, shard in shards.items()})
    if problems:
        return problems
    for file, shards in ranks:
        problems += _value_problems(file, shards, read_weights=read_weights)
    return [*problems, *_replica_problems(config, ranks)]


def _value_problems(file: TensorFile, shards: Mapping[str, Shard], *, read_weights: bool) -> Iterator[Problem]:
    for name in shards:
        if name.endswith(_SCALE_SUFFIXES):
            yield from _scale_problems(file, name)
        elif read_weights and file.dtype(name) in FLOAT_DTYPES:
            yield from _weight_problems(file, name)
        elif read_weights and file.dtype(name) == "F8_E4M3":
            yield from _fp8_problems(file, name)


def _replica_problems(
    config: CheckpointConfig, ranks: Sequence[tuple[TensorFile, Mapping[str, Shard]]]
) -> Iterator[Problem]:
    """What tensor parallel ranks hold of the same rows and columns must be the same bytes."""
    for first in range(0, len(ranks), config.tp_size):
        reference, reference_shards = ranks[first]
        for file, shards in ranks[first + 1 : first + config.tp_size]:
            for name, shard in shards.items():
                is_replica = shard == reference_shards[name]
                if is_replica and not np.array_equal(file.raw(name), reference.raw(name)):
                    message = f"differs from the same tensor in {reference.path.name}"
                    yield Problem(file=file.path, key=name, message=message, hint=_REBUILD)


def require_sound(directory: Path, spec: ModelSpec | None = None, *, read_weights: bool = True) -> None:
    """Raise what `verify` finds.

    Raises:
        ArtefactError: with every problem.
    """
    problems = verify(directory, spec, read_weights=read_weights)
    if problems:
        raise ArtefactError("\n".join(str(problem) for problem in problems))


def _layout_problems(file: TensorFile, layouts: Mapping[str, TensorLayout]) -> Iterator[Problem]:
    """Compare names, element types and shapes with what the config asks for."""
    for name, layout in layouts.items():
        entry = file.entries.get(name)
        if entry is None:
            yield Problem(file=file.path, key=name, message="is missing", hint=_REBUILD)
        elif entry.shape != layout.shape:
            message = f"has shape {list(entry.shape)}, {list(layout.shape)} is expected"
            yield Problem(file=file.path, key=name, message=message, hint=_REBUILD)
        elif entry.dtype != layout.dtype and not (name.endswith(_PREQUANT_SUFFIX) and entry.dtype in FLOAT_DTYPES):
            message = f"has element type {entry.dtype}, {layout.dtype} is expected"
            yield Problem(file=file.path, key=name, message=message, hint=_dtype_hint(name, entry.dtype))
    for name in file.entries:
        if name not in layouts and not _is_known_extra(name, layouts):
            yield Problem(file=file.path, key=name, message="is no part of this format", hint=_REBUILD)


def _dtype_hint(name: str, found: str) -> str:
    if found == "I8" and name.endswith(".weight"):
        return "W8A16 and W4A16 checkpoints hold 16-bit weights; trtllm-build skips integer ones and then fails."
    return _REBUILD


def _is_known_extra(name: str, layouts: Mapping[str, TensorLayout]) -> bool:
    """ModelOpt writes the scales of K and of V beside the one of both; TensorRT-LLM takes the larger."""
    for part in ("k_cache", "v_cache"):
        if name.endswith(f".attention.{part}{_SCALE_SUFFIX}"):
            layer = name.split(".")[2]
            return layer.isdigit() and kv_scale_name(int(layer)) in layouts
    return False


def _scale_problems(file: TensorFile, name: str) -> Iterator[Problem]:
    values = to_float32(file.raw(name), file.dtype(name))
    bad = int(np.count_nonzero(~(np.isfinite(values) & (values > 0))))
    if bad:
        message = f"{bad} of {values.size} scales are not finite and positive"
        yield Problem(file=file.path, key=name, message=message, hint=_REBUILD)


def _fp8_problems(file: TensorFile, name: str) -> Iterator[Problem]:
    codes = file.raw(name).reshape(-1)
    if any(
        np.any((codes[start : start + _CHUNK_ELEMENTS] & 0x7F) == 0x7F)
        for start in range(0, codes.size, _CHUNK_ELEMENTS)
    ):
        yield Problem(file=file.path, key=name, message="holds NaN values", hint=_REBUILD)


def _weight_problems(file: TensorFile, name: str) -> Iterator[Problem]:
    raw, dtype = file.raw(name).reshape(-1), file.dtype(name)
    if not all(is_finite(raw[start : start + _CHUNK_ELEMENTS], dtype) for start in range(0, raw.size, _CHUNK_ELEMENTS)):
        yield Problem(file=file.path, key=name, message="holds NaN or infinite values", hint=_REBUILD)

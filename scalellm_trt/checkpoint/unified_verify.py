"""A unified Hugging Face checkpoint in, everything that is wrong with it out."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from scalellm_trt import model_spec
from scalellm_trt.checkpoint.dtypes import StoredDtype, to_float32
from scalellm_trt.checkpoint.layout import source_tensors
from scalellm_trt.checkpoint.source import SourceWeights
from scalellm_trt.errors import ArtefactError, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from scalellm_trt.checkpoint.tensor_file import TensorFile
    from scalellm_trt.model_spec import ModelSpec

_REBUILD: Final = "Build the checkpoint again."
_SCALES: Final[dict[str, tuple[str, ...]]] = {
    "FP8": ("weight_scale", "input_scale"),
    "W4A16_AWQ": ("weight_scale",),
    "W4A8_AWQ": ("weight_scale", "weight_scale_2", "input_scale"),
    "NVFP4": ("weight_scale", "weight_scale_2", "input_scale"),
}
_STORED: Final[dict[str, StoredDtype]] = {"FP8": "F8_E4M3", "W4A16_AWQ": "U8", "W4A8_AWQ": "U8", "NVFP4": "U8"}
_SCALE_SUFFIXES: Final = ("_scale", "_scale_2")


def is_unified(directory: Path) -> bool:
    """Tell whether a checkpoint is a Hugging Face model, not TensorRT-LLM's rank files."""
    return (directory / "model.safetensors.index.json").is_file()


def verify_unified(directory: Path, spec: ModelSpec | None = None) -> list[Problem]:
    """Return what is missing, of a wrong type or shape, or no positive number; an empty list means that it is sound.

    Args:
        directory: what `unified.write_unified` wrote.
        spec: the model that it was made from; None takes what config.json says.

    Raises:
        ArtefactError: a config or a file's header cannot be read at all.
        UnsupportedError: config.json describes a model that we do not have.
    """
    spec = spec or _described_model(directory / "config.json")
    algo, kv_algo = _algos(directory)
    weights = SourceWeights(directory)
    problems = [
        problem
        for source in source_tensors(spec).values()
        for part, rows in source.parts
        for problem in _part_problems(weights, directory, part, (rows, *source.shape[1:][-1:]), algo)
    ]
    if kv_algo is not None:
        for layer in range(spec.num_layers):
            for part in "kv":
                name = f"model.layers.{layer}.self_attn.{part}_proj.{part}_scale"
                if name not in weights.files:
                    problems.append(Problem(file=directory, key=name, message="is missing", hint=_REBUILD))
    for name, file in weights.files.items():
        if name.endswith(_SCALE_SUFFIXES):
            problems += _scale_problems(file, name)
    return problems


def _described_model(path: Path) -> ModelSpec:
    """Read the model's shape; as a source of weights a quantized model is refused, and here it is what we want."""
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        message = f"{path}: cannot be read: {error}"
        raise ArtefactError(message, hint=_REBUILD) from error
    return model_spec.from_hf_config({key: config[key] for key in config if key != "quantization_config"}, path)


def _algos(directory: Path) -> tuple[str | None, str | None]:
    path = directory / "hf_quant_config.json"
    if not path.exists():
        return None, None
    try:
        quantization: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["quantization"]
        return quantization["quant_algo"], quantization["kv_cache_quant_algo"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = f"{path}: cannot be read: {error}"
        raise ArtefactError(message, hint=_REBUILD) from error


def _part_problems(
    weights: SourceWeights, directory: Path, name: str, shape: tuple[int, ...], algo: str | None
) -> Iterator[Problem]:
    """Check a tensor of the model: as it was, or packed with its scales where the format applies to it."""
    if name not in weights.files:
        yield Problem(file=directory, key=name, message="is missing", hint=_REBUILD)
        return
    file = weights.files[name]
    found = file.entries[name]
    is_quantized = algo is not None and _is_linear(name)
    expected = _packed_shape(shape, algo) if algo is not None and is_quantized else shape
    if found.shape != expected:
        message = f"has shape {list(found.shape)}, {list(expected)} is expected"
        yield Problem(file=file.path, key=name, message=message, hint=_REBUILD)
    if algo is None or not is_quantized:
        return
    if found.dtype != _STORED[algo]:
        message = f"has element type {found.dtype}, {_STORED[algo]} is expected"
        yield Problem(file=file.path, key=name, message=message, hint=_REBUILD)
    for scale in _SCALES[algo]:
        scale_name = f"{name.removesuffix('weight')}{scale}"
        if scale_name not in weights.files:
            yield Problem(file=file.path, key=scale_name, message="is missing", hint=_REBUILD)


def _is_linear(name: str) -> bool:
    """Tell whether formats apply to it: the projections and experts of layers, not routers, norms or biases."""
    parts = name.split(".")
    return name.endswith(".weight") and (parts[-2].endswith("_proj") or ".experts." in name)


def _packed_shape(shape: tuple[int, ...], algo: str) -> tuple[int, ...]:
    """AWQ packs two output rows into a byte, NVFP4 two inputs."""
    rows, columns = shape
    if algo == "NVFP4":
        return rows, columns // 2
    return (rows, columns) if algo == "FP8" else (rows // 2, columns)


def _scale_problems(file: TensorFile, name: str) -> Iterator[Problem]:
    values = to_float32(file.raw(name), file.dtype(name))
    bad = int(np.count_nonzero(~(np.isfinite(values) & (values > 0))))
    if bad:
        message = f"{bad} of {values.size} scales are not finite and positive"
        yield Problem(file=file.path, key=name, message=message, hint=_REBUILD)

"""Hugging Face weights in, a full_prec, int8_wo or int4_wo checkpoint out, a few megabytes at a time.

The weight-only formats are written in native form: weights in 16 bits plus `quant_algo`; the compiler quantizes them
(see `weight_only`). So all three are the same copy, and host memory does not grow with the model.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from scalellm_trt.checkpoint import config as checkpoint_config
from scalellm_trt.checkpoint.config import CheckpointConfig, KvCacheQuantAlgo, QuantAlgo
from scalellm_trt.checkpoint.dtypes import RAW_DTYPES, STORED_DTYPES, StoredDtype, convert, is_finite
from scalellm_trt.checkpoint.layout import source_tensors, tensor_layouts
from scalellm_trt.checkpoint.source import SourceWeights
from scalellm_trt.checkpoint.tensor_file import TensorFileWriter
from scalellm_trt.checkpoint.tokenizer_files import copy_tokenizer_files
from scalellm_trt.errors import ArtefactError, Problem, StageError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from scalellm_trt.checkpoint.dtypes import CheckpointDtype, RawArray
    from scalellm_trt.checkpoint.layout import SourceTensor
    from scalellm_trt.checkpoint.tensor_file import TensorFile
    from scalellm_trt.model_spec import ModelSpec

    Progress = Callable[[str, float], None]

StreamedFormat = Literal["full_prec", "int8_wo", "int4_wo"]
StreamedKvCacheDtype = Literal["float16", "int8", "fp8"]

_QUANT_ALGOS: Final[dict[StreamedFormat, QuantAlgo | None]] = {
    "full_prec": None,
    "int8_wo": "W8A16",
    "int4_wo": "W4A16",
}
_CHUNK_BYTES: Final = 4 << 20  # a multiple of every element size
_MIB: Final = 1 << 20


def streamed_config(
    spec: ModelSpec,
    weights: StreamedFormat,
    dtype: CheckpointDtype,
    kv_cache_dtype: StreamedKvCacheDtype = "float16",
    *,
    tp_size: int = 1,
    pp_size: int = 1,
) -> CheckpointConfig:
    """Return the config of the checkpoint that `convert_weights` writes.

    Args:
        spec: the model.
        weights: the recipe's weight format.
        dtype: element type of the stored tensors.
        kv_cache_dtype: `float16` is the engine's 16-bit default and needs no scale. `fp8` gets the scale 1.0 in every
            layer, which is what NVIDIA's converter writes and what ModelOpt's export clamps to.
        tp_size: tensor parallel ranks.
        pp_size: pipeline parallel ranks.

    Raises:
        UnsupportedError: `int8`, whose scales need calibration.
    """
    if kv_cache_dtype == "int8":
        message = f"int8 needs calibrated scales, and {weights} is converted without calibration"
        hint = "Use auto (16-bit) or, on cards with compute capability 8.9 and higher, fp8."
        raise UnsupportedError([Problem(key="quantization.kv_cache_dtype", message=message, hint=hint)])
    kv_algo: KvCacheQuantAlgo | None = "FP8" if kv_cache_dtype == "fp8" else None
    return CheckpointConfig(
        spec=spec,
        dtype=dtype,
        quant_algo=_QUANT_ALGOS[weights],
        kv_cache_quant_algo=kv_algo,
        tp_size=tp_size,
        pp_size=pp_size,
    )


def convert_weights(
    model_dir: Path,
    config: CheckpointConfig,
    out_dir: Path,
    progress: Progress,
    calibrated: TensorFile | None = None,
) -> None:
    """Write `config.json`, `rank0.safetensors` and the tokenizer's files into the existing directory `out_dir`.

    Anonymous memory stays within some tens of MiB whatever the model's size; on return the weights are on disk.

    Args:
        model_dir: a Hugging Face directory.
        config: from `streamed_config` (or of a calibrated format), with the spec of this very model.
        out_dir: an empty directory.
        progress: called with the share of bytes written.
        calibrated: tensors that calibration made, under the checkpoint's names: taken instead of the model's.

    Raises:
        ArtefactError: the model's files are incomplete, damaged, or hold NaN or infinite values.
        UnsupportedError: an element type, unknown tensors, or more than one rank.
        StageError: the disk is full or cannot be written.
    """
    layouts = tensor_layouts(config)
    source = SourceWeights(model_dir)
    source.check(config.spec)
    sources = source_tensors(config.spec)
    target = STORED_DTYPES[config.dtype]
    path = out_dir / "rank0.safetensors"
    with TensorFileWriter(path, layouts) as writer:
        _require_disk_space(out_dir, writer.total_bytes)
        done = 0
        for name in writer.names():
            progress(f"writing {name}", done / writer.total_bytes)
            if calibrated is not None and name in calibrated.entries:
                raw = convert(calibrated.raw(name), calibrated.dtype(name), layouts[name].dtype)
                writer.write(name, [raw])
            elif name in sources:
                writer.write(name, _converted(source, sources[name], target))
            else:
                writer.write(name, [np.ones(1, np.float32)])  # a KV cache scale
            done += layouts[name].size_bytes
    checkpoint_config.write(config, out_dir)
    copy_tokenizer_files(model_dir, out_dir)
    progress("written", 1.0)


def _require_disk_space(directory: Path, needed_bytes: int) -> None:
    free_bytes = shutil.disk_usage(directory).free
    if free_bytes < needed_bytes:
        message = f"{directory}: the checkpoint needs {needed_bytes} bytes, {free_bytes} are free on this disk"
        raise StageError(message, hint=f"Free {(needed_bytes - free_bytes) // _MIB + 1} MiB or choose another disk.")


def _converted(source: SourceWeights, tensor: SourceTensor, target: StoredDtype) -> Iterator[RawArray]:
    """Yield the elements of a tensor's parts, one after the other, as raw `target`."""
    for name, _ in tensor.parts:
        file = source.files[name]
        dtype = file.dtype(name)
        for chunk in _read(source, name, dtype):
            if not is_finite(chunk, dtype):
                message = f"{file.path}: tensor {name} holds NaN or infinite values"
                raise ArtefactError(message, hint="Fetch the model again.")
            converted = convert(chunk, dtype, target)
            if converted is not chunk and not is_finite(converted, target):
                message = f"{file.path}: tensor {name} holds values beyond the range of float16"
                raise UnsupportedError([Problem(key="model.dtype", message=message, hint="Use bfloat16.")])
            yield converted


def _read(source: SourceWeights, name: str, dtype: StoredDtype) -> Iterator[RawArray]:
    """Yield the tensor in pieces read into one buffer: each is valid until the next is asked for."""
    entry, path = source.entry(name), source.files[name].path
    buffer = np.empty(min(_CHUNK_BYTES, entry.size_bytes), np.uint8)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        message = f"{path}: cannot be read: {error.strerror}"
        raise ArtefactError(message) from error
    try:
        for start in range(0, entry.size_bytes, _CHUNK_BYTES):
            piece = buffer[: min(_CHUNK_BYTES, entry.size_bytes - start)]
            if os.preadv(descriptor, [piece.data], entry.offset_bytes + start) != piece.size:
                message = f"{path}: became shorter while it was read"
                raise ArtefactError(message, hint="Fetch the model again.")
            yield piece.view(RAW_DTYPES[dtype])
    finally:
        os.close(descriptor)

"""Hugging Face weights, and what calibration made of them, in; a checkpoint's rank files out, a few MiB at a time.

The weight-only formats are written in native form: weights in 16 bits plus `quant_algo`; the compiler quantizes them
(see `weight_only`). So `full_prec`, `int8_wo` and `int4_wo` are the same copy, and host memory does not grow with the
model.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from scalellm_trt.checkpoint import config as checkpoint_config
from scalellm_trt.checkpoint.dtypes import FLOAT_DTYPES, RAW_DTYPES, convert, is_finite
from scalellm_trt.checkpoint.layout import SourceTensor, source_tensors
from scalellm_trt.checkpoint.row_reader import num_rows, read_rows
from scalellm_trt.checkpoint.shards import num_ranks, rank_problems, rank_shards
from scalellm_trt.checkpoint.source import SourceWeights
from scalellm_trt.checkpoint.tensor_file import TensorFileWriter
from scalellm_trt.checkpoint.tokenizer_files import copy_tokenizer_files
from scalellm_trt.errors import ArtefactError, Problem, StageError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from scalellm_trt.checkpoint.config import CheckpointConfig
    from scalellm_trt.checkpoint.dtypes import RawArray, StoredDtype
    from scalellm_trt.checkpoint.shards import Range, Shard
    from scalellm_trt.checkpoint.tensor_file import TensorFile

    Progress = Callable[[str, float], None]

_MIB: Final = 1 << 20
_ZEROS_ELEMENTS: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTensor:
    """Where a tensor lies: a file, and its name in there."""

    file: TensorFile
    name: str


def convert_weights(
    model_dir: Path,
    config: CheckpointConfig,
    out_dir: Path,
    progress: Progress,
    calibrated: Mapping[str, StoredTensor] | None = None,
) -> None:
    """Write `config.json`, `rankN.safetensors` and the tokenizer's files into the existing directory `out_dir`.

    Anonymous memory stays within some tens of MiB whatever the model's size; on return the weights are on disk.

    Args:
        model_dir: a Hugging Face directory.
        config: from `formats.config_for`, with the spec of this very model.
        out_dir: an empty directory.
        progress: called with the share of bytes written.
        calibrated: tensors of the whole model that calibration made, by the checkpoint's names: taken instead of the
            model's.

    Raises:
        ArtefactError: the model's files are incomplete, damaged, or hold NaN or infinite values.
        UnsupportedError: an element type, unknown tensors, or a number of ranks that does not divide the model.
        StageError: the disk is full or cannot be written.
    """
    if problems := rank_problems(config):
        raise UnsupportedError(problems)
    source = SourceWeights(model_dir)
    source.check(config.spec)
    origins = _Origins(source, source_tensors(config.spec), calibrated or {})
    files = [rank_shards(config, rank) for rank in range(num_ranks(config))]
    total_bytes = sum(shard.layout.size_bytes for shards in files for shard in shards.values())
    _require_disk_space(out_dir, total_bytes)
    done = 0
    for rank, shards in enumerate(files):
        layouts = {name: shard.layout for name, shard in shards.items()}
        with TensorFileWriter(out_dir / f"rank{rank}.safetensors", layouts) as writer:
            for name in writer.names():
                progress(f"writing rank {rank}: {name}", done / total_bytes)
                writer.write(name, _elements(origins, shards[name]))
                done += layouts[name].size_bytes
    checkpoint_config.write(config, out_dir)
    copy_tokenizer_files(model_dir, out_dir)
    progress("written", 1.0)


def _require_disk_space(directory: Path, needed_bytes: int) -> None:
    free_bytes = shutil.disk_usage(directory).free
    if free_bytes < needed_bytes:
        message = f"{directory}: the checkpoint needs {needed_bytes} bytes, {free_bytes} are free on this disk"
        raise StageError(message, hint=f"Free {(needed_bytes - free_bytes) // _MIB + 1} MiB or choose another disk.")


class _Origins:
    """Where the rows of each tensor of the whole model come from."""

    def __init__(
        self, source: SourceWeights, sources: Mapping[str, SourceTensor], calibrated: Mapping[str, StoredTensor]
    ) -> None:
        self._source = source
        self._sources = sources
        self._calibrated = calibrated

    def parts(self, name: str) -> list[tuple[StoredTensor, int]]:
        """Return the stored tensors that make up `name`, stacked along rows, and how many rows each has."""
        if name in self._calibrated:
            stored = self._calibrated[name]
            return [(stored, num_rows(stored.file.entries[stored.name].shape))]
        parts = self._sources[name].parts if name in self._sources else ()
        return [(StoredTensor(file=self._source.files[part], name=part), rows) for part, rows in parts]


def _elements(origins: _Origins, shard: Shard) -> Iterator[RawArray]:
    """Yield the elements of a shard in order, as its layout stores them."""
    parts, target = origins.parts(shard.source), shard.layout.dtype
    if not parts:
        yield np.ones(1, np.float32)  # the scale of an FP8 KV cache that nothing calibrated
        return
    num_elements = 0
    for wanted in shard.rows:
        first = 0
        for stored, height in parts:
            start, stop = max(wanted[0], first), min(wanted[1], first + height)
            if start < stop:
                for chunk in converted_rows(stored, (start - first, stop - first), shard.columns, target):
                    num_elements += chunk.size
                    yield chunk
            first += height
    yield from _zeros(int(np.prod(shard.layout.shape)) - num_elements, target)


def _zeros(num_elements: int, target: StoredDtype) -> Iterator[RawArray]:
    """Yield the padding that makes a vocabulary a multiple of the ranks."""
    while num_elements > 0:
        yield np.zeros(min(num_elements, _ZEROS_ELEMENTS), RAW_DTYPES[target])
        num_elements -= _ZEROS_ELEMENTS


def converted_rows(stored: StoredTensor, rows: Range, columns: Range | None, target: StoredDtype) -> Iterator[RawArray]:
    """Yield rows of a stored tensor as raw `target`, refusing what cannot be a weight."""
    file, name = stored.file, stored.name
    dtype = file.dtype(name)
    is_float = dtype in FLOAT_DTYPES
    for chunk in read_rows(file, name, rows, columns):
        if is_float and not is_finite(chunk, dtype):
            message = f"{file.path}: tensor {name} holds NaN or infinite values"
            raise ArtefactError(message, hint="Fetch the model again.")
        converted = convert(chunk, dtype, target)
        if converted is not chunk and not is_finite(converted, target):
            message = f"{file.path}: tensor {name} holds values beyond the range of float16"
            raise UnsupportedError([Problem(key="model.dtype", message=message, hint="Use bfloat16.")])
        yield converted

"""Tensors in, `.safetensors` files out, written front to back: at no time does a whole tensor have to be in memory.

Format: https://github.com/huggingface/safetensors#format. 8 bytes of header length, a JSON header, the data.
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

SHARD_BYTES = 4_000_000_000
_DTYPES = {"float16": ("F16", 2), "bfloat16": ("BF16", 2), "float32": ("F32", 4)}


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorEntry:
    """A tensor to be written: its name, shape and type (`float16`, `bfloat16` or `float32`)."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def num_bytes(self) -> int:
        """Size of the data."""
        return math.prod(self.shape) * _DTYPES[self.dtype][1]


def write_model(
    directory: Path,
    tensors: Sequence[TensorEntry],
    chunks: Callable[[TensorEntry], Iterator[npt.NDArray[np.generic]]],
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write `model.safetensors`, or numbered shards and their index where it would pass `shard_bytes`.

    Args:
        directory: where to; it must exist.
        tensors: all of them, in the order of the files.
        chunks: gives the data of a tensor, in order, as contiguous little-endian arrays of any shape.
        shard_bytes: data of one file at most; a larger tensor gets a file of its own.
    """
    shards = _shards(tensors, shard_bytes)
    if len(shards) == 1:
        _write_file(directory / "model.safetensors", tensors, chunks)
        return
    weight_map = {}
    for number, shard in enumerate(shards, 1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        _write_file(directory / name, shard, chunks)
        weight_map.update(dict.fromkeys((tensor.name for tensor in shard), name))
    index = {"metadata": {"total_size": sum(tensor.num_bytes for tensor in tensors)}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")


def _shards(tensors: Iterable[TensorEntry], shard_bytes: int) -> list[list[TensorEntry]]:
    shards: list[list[TensorEntry]] = [[]]
    filled = 0
    for tensor in tensors:
        if shards[-1] and filled + tensor.num_bytes > shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(tensor)
        filled += tensor.num_bytes
    return shards


def _write_file(
    path: Path, tensors: Sequence[TensorEntry], chunks: Callable[[TensorEntry], Iterator[npt.NDArray[np.generic]]]
) -> None:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor in tensors:
        start, end = end, end + tensor.num_bytes
        header[tensor.name] = {
            "dtype": _DTYPES[tensor.dtype][0],
            "shape": tensor.shape,
            "data_offsets": (start, end),
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the format asks for data on an 8-byte boundary
    with path.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors:
            written = sum(stream.write(chunk.data.cast("B")) for chunk in chunks(tensor))
            assert written == tensor.num_bytes, f"{tensor.name}: {written} bytes of {tensor.num_bytes}"

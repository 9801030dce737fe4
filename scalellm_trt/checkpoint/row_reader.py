"""Rows of a stored tensor in, arrays out, a few MiB at a time and without mapping the file."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Final

import numpy as np

from scalellm_trt.checkpoint.dtypes import RAW_DTYPES, item_size
from scalellm_trt.errors import ArtefactError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scalellm_trt.checkpoint.dtypes import RawArray
    from scalellm_trt.checkpoint.shards import Range
    from scalellm_trt.checkpoint.tensor_file import TensorFile

_CHUNK_BYTES: Final = 4 << 20  # a multiple of every element size


def read_rows(file: TensorFile, name: str, rows: Range, columns: Range | None = None) -> Iterator[RawArray]:
    """Yield a tensor's elements row by row; all dimensions but the last make up the rows, a vector has one column.

    Each array is C-contiguous and valid until the next is asked for: they share one buffer.

    Args:
        file: where the tensor is.
        name: its name there.
        rows: the first and the row after the last.
        columns: the same for columns; None is all of them.

    Raises:
        ArtefactError: the file cannot be read or became shorter.
    """
    entry, dtype = file.entries[name], file.dtype(name)
    num_columns = entry.shape[-1] if len(entry.shape) > 1 else 1
    row_bytes = num_columns * item_size(dtype)
    span = (entry.offset_bytes + rows[0] * row_bytes, entry.offset_bytes + rows[1] * row_bytes)
    if columns is None or columns == (0, num_columns):
        for piece in _read(file, span, _CHUNK_BYTES):
            yield piece.view(RAW_DTYPES[dtype])
        return
    step = max(1, _CHUNK_BYTES // row_bytes) * row_bytes
    for piece in _read(file, span, step):
        matrix = piece.view(RAW_DTYPES[dtype]).reshape(-1, num_columns)
        yield np.ascontiguousarray(matrix[:, columns[0] : columns[1]])


def num_rows(shape: tuple[int, ...]) -> int:
    """Return how many rows a tensor of this shape has; a scalar has one."""
    return math.prod(shape) if len(shape) < 2 else math.prod(shape[:-1])


def _read(file: TensorFile, span: Range, step: int) -> Iterator[RawArray]:
    """Yield the bytes of `span` in pieces of `step`, read into one buffer."""
    start, stop = span
    buffer = np.empty(min(step, stop - start), np.uint8)
    try:
        descriptor = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        message = f"{file.path}: cannot be read: {error.strerror}"
        raise ArtefactError(message) from error
    try:
        for position in range(start, stop, step):
            piece = buffer[: min(step, stop - position)]
            if os.preadv(descriptor, [piece.data], position) != piece.size:
                message = f"{file.path}: became shorter while it was read"
                raise ArtefactError(message, hint="Fetch the model again.")
            yield piece
    finally:
        os.close(descriptor)

"""A safetensors file in, its tensors out one at a time; or tensors in, a file out, without holding any of them."""

from __future__ import annotations

import errno
import json
import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast, get_args

import numpy as np

from scalellm_trt.checkpoint.dtypes import RAW_DTYPES, StoredDtype, item_size
from scalellm_trt.errors import ArtefactError, StageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path
    from types import TracebackType

    from scalellm_trt.checkpoint.dtypes import RawArray

# The format's own limit on its header (safetensors, MAX_HEADER_SIZE).
_MAX_HEADER_BYTES: Final = 100_000_000
_SUPPORTED = get_args(StoredDtype)


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorEntry:
    """One tensor of a file. `offset_bytes` counts from the start of the file.

    `dtype` is the file's own word for it; only those in `StoredDtype` can be read.
    """

    dtype: str
    shape: tuple[int, ...]
    offset_bytes: int
    size_bytes: int


class TensorFile:
    """A safetensors file, read through the page cache; arrays are views of it and cost no memory of their own."""

    def __init__(self, path: Path) -> None:
        """Read and check the header.

        Raises:
            ArtefactError: the file is missing, truncated or no safetensors file.
        """
        self.path = path
        try:
            self.entries: Mapping[str, TensorEntry] = _read_entries(path)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
            message = f"{path}: is not a complete safetensors file: {error}"
            raise ArtefactError(message, hint="Fetch or build it again.") from error

    def raw(self, name: str) -> RawArray:
        """Return the tensor as `RAW_DTYPES` says, read-only; the file stays mapped as long as the array lives.

        Raises:
            KeyError: no such tensor.
            ArtefactError: its element type is not supported.
        """
        entry = self.entries[name]
        dtype = self.dtype(name)
        if not entry.size_bytes:
            return np.empty(entry.shape, RAW_DTYPES[dtype])
        return np.memmap(self.path, RAW_DTYPES[dtype], "r", entry.offset_bytes, entry.shape)

    def dtype(self, name: str) -> StoredDtype:
        """Return the tensor's element type.

        Raises:
            ArtefactError: it is not one that we read.
        """
        dtype = self.entries[name].dtype
        if dtype not in _SUPPORTED:
            message = f"{self.path}: {name}: element type {dtype} is not supported"
            raise ArtefactError(message, hint=f"Supported: {', '.join(_SUPPORTED)}.")
        return cast("StoredDtype", dtype)


def _read_entries(path: Path) -> dict[str, TensorEntry]:
    with path.open("rb") as file:
        file_size = os.fstat(file.fileno()).st_size
        (header_size,) = struct.unpack("<Q", file.read(8))
        if header_size > min(_MAX_HEADER_BYTES, file_size - 8):
            message = f"its header would be {header_size} bytes"
            raise ValueError(message)
        header = json.loads(file.read(header_size))
    start, entries = 8 + header_size, {}
    for name, fields in header.items():
        if name == "__metadata__":
            continue
        begin, end = fields["data_offsets"]
        entry = TensorEntry(
            dtype=fields["dtype"], shape=tuple(fields["shape"]), offset_bytes=start + begin, size_bytes=end - begin
        )
        _check_entry(name, entry, start, file_size)
        entries[name] = entry
    return entries


def _check_entry(name: str, entry: TensorEntry, data_start: int, file_size: int) -> None:
    """Raise ValueError where an entry points outside the file or its size does not follow from its shape."""
    if entry.offset_bytes < data_start or entry.size_bytes < 0 or entry.offset_bytes + entry.size_bytes > file_size:
        message = f"tensor {name} ends at byte {entry.offset_bytes + entry.size_bytes} of {file_size}"
        raise ValueError(message)
    if any(not isinstance(size, int) or size < 0 for size in entry.shape):
        message = f"tensor {name} has shape {list(entry.shape)}"
        raise ValueError(message)
    if entry.dtype in _SUPPORTED:
        expected = int(np.prod(entry.shape, dtype=np.int64)) * item_size(cast("StoredDtype", entry.dtype))
        if expected != entry.size_bytes:
            message = f"tensor {name} has {entry.size_bytes} bytes, its shape needs {expected}"
            raise ValueError(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorLayout:
    """Element type and shape of a tensor that is to be written or is expected in a file."""

    dtype: StoredDtype
    shape: tuple[int, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes of the tensor in a file."""
        return int(np.prod(self.shape, dtype=np.int64)) * item_size(self.dtype)


def storage_order(layouts: Mapping[str, TensorLayout]) -> list[str]:
    """Return the names as the file stores them: wider elements first, so that every tensor is aligned to its type."""
    return sorted(layouts, key=lambda name: -item_size(layouts[name].dtype))


def render_header(layouts: Mapping[str, TensorLayout]) -> bytes:
    """Return the first bytes of the file: length, JSON, and spaces up to a multiple of 8."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name in storage_order(layouts):
        layout = layouts[name]
        end = offset + layout.size_bytes
        header[name] = {"dtype": layout.dtype, "shape": list(layout.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


class TensorFileWriter:
    """Writes a safetensors file front to back. What it will hold is known from the start, so nothing is kept.

    Use as a context manager; leaving it without an error checks that every byte was written and syncs the file to disk.
    """

    def __init__(self, path: Path, layouts: Mapping[str, TensorLayout]) -> None:
        """Open `path` for writing; `layouts` are all the tensors of the file.

        Raises:
            StageError: the file cannot be written.
        """
        self.path = path
        self._layouts = layouts
        header = render_header(layouts)
        self.total_bytes = len(header) + sum(layout.size_bytes for layout in layouts.values())
        self._written_bytes = 0
        try:
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise self._failure(error) from error
        self._write(header)

    def __enter__(self) -> TensorFileWriter:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Sync and close; after an error only close."""
        try:
            if kind is None:
                if self._written_bytes != self.total_bytes:  # our own bug, never the user's
                    message = f"{self.path}: {self._written_bytes} of {self.total_bytes} bytes were written"
                    raise AssertionError(message)
                os.fsync(self._descriptor)
        except OSError as failure:
            raise self._failure(failure) from failure
        finally:
            os.close(self._descriptor)

    def names(self) -> Iterator[str]:
        """Yield the names in the order in which `write` must receive them."""
        yield from storage_order(self._layouts)

    def write(self, name: str, chunks: Iterable[RawArray]) -> None:
        """Append the tensor `name` as consecutive C-contiguous raw arrays.

        Raises:
            StageError: the disk is full or the write failed.
        """
        before = self._written_bytes
        for chunk in chunks:
            if chunk.size:  # memoryview.cast refuses empty arrays
                self._write(np.ascontiguousarray(chunk).data.cast("B"))
        if self._written_bytes - before != self._layouts[name].size_bytes:  # our own bug, never the user's
            message = f"{name}: wrote {self._written_bytes - before} bytes, announced {self._layouts[name].size_bytes}"
            raise AssertionError(message)

    def _write(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        while view:
            try:
                count = os.write(self._descriptor, view)
            except OSError as error:
                raise self._failure(error) from error
            self._written_bytes += count
            view = view[count:]

    def _failure(self, error: OSError) -> StageError:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            message = (
                f"{self.path}: the disk is full: the file needs {self.total_bytes} bytes, {self._written_bytes} fit"
            )
            return StageError(message, hint="Free that much on this file system, or choose another output directory.")
        return StageError(f"{self.path}: cannot be written: {error.strerror}")

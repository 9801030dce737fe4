"""A GGUF file in, its metadata and a view of each tensor's raw rows out. Nothing is copied until it is asked for.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. The `gguf` package has a reader too, but it makes
several arrays for every token of the vocabulary (3 s for 49,152 of them, 0.1 s here) and trusts what a file says.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from scalellm_trt.errors import ArtefactError, Problem, ToolchainError, UnsupportedError
from scalellm_trt.model_source.source import SOURCE_KEY

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import NoReturn

    import numpy.typing as npt

Scalar = bool | int | float | str
Value = Scalar | list[Scalar]
T = TypeVar("T", bool, int, float, str)

_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9
_VERSIONS = (2, 3)
_MAX_DIMENSIONS = 4
_DEFAULT_ALIGNMENT = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufTensor:
    """A tensor's place in the file.

    Attributes:
        name: as in the file, such as `blk.0.attn_q.weight`.
        shape: outermost dimension first, as numpy and Hugging Face write it.
        type_name: the ggml type, such as `Q4_K`.
        offset: of its first byte from the start of the file.
        row_bytes: one run along the last dimension.
    """

    name: str
    shape: tuple[int, ...]
    type_name: str
    offset: int
    row_bytes: int

    @property
    def num_rows(self) -> int:
        """Runs along the last dimension; 1 for a vector."""
        return math.prod(self.shape[:-1])


class GgufFile:
    """An open GGUF file.

    Attributes:
        path: where it is.
        metadata: key → value, as in the file.
        tensors: name → tensor, in the file's order.
    """

    def __init__(self, path: Path) -> None:
        """Read the header and check that every tensor lies inside the file.

        Raises:
            ArtefactError: it is no GGUF file, or it is cut short or damaged.
            UnsupportedError: a version, byte order or tensor type that cannot be read, or one part of several.
            ToolchainError: the `gguf` package is not installed.
        """
        self.path = path
        try:
            self._bytes: npt.NDArray[np.uint8] = np.memmap(path, dtype=np.uint8, mode="r")
        except ValueError:  # mmap refuses an empty file
            self.fail("is empty")
        cursor = _Cursor(self._bytes)
        try:
            num_tensors, num_values = self._read_start(cursor)
            self.metadata: Mapping[str, Value] = {cursor.string(): cursor.value() for _ in range(num_values)}
            self._refuse_part()
            self.tensors: Mapping[str, GgufTensor] = self._read_tensors(cursor, num_tensors)
        except (struct.error, ValueError, OverflowError) as error:
            self.fail(str(error))

    def raw_rows(self, tensor: GgufTensor) -> npt.NDArray[np.uint8]:
        """Return the tensor's bytes, (num_rows, row_bytes) uint8, as a view of the file."""
        end = tensor.offset + tensor.num_rows * tensor.row_bytes
        return self._bytes[tensor.offset : end].reshape(tensor.num_rows, tensor.row_bytes)

    def get(self, key: str, kind: type[T], default: T) -> T:
        """Return a metadata value of the given type, or `default` where the key is missing.

        Raises:
            ArtefactError: it has another type.
        """
        return self.require(key, kind) if key in self.metadata else default

    def require(self, key: str, kind: type[T]) -> T:
        """Return a metadata value of the given type; whole numbers count as float where one is wanted.

        Raises:
            ArtefactError: it is missing or has another type.
        """
        value = self.metadata.get(key)
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        # type() and not isinstance(): a bool is an int, but never a count.
        if type(value) is not kind:
            found = "is missing" if value is None else f"is {type(value).__name__}, not {kind.__name__}"
            self.fail(f"metadata {key} {found}")
        return value

    def strings(self, key: str) -> list[str]:
        """Return an array of strings; empty where the key is missing.

        Raises:
            ArtefactError: it is something else.
        """
        values = self.metadata.get(key, [])
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            self.fail(f"metadata {key} is no array of strings")
        return [str(value) for value in values]

    def numbers(self, key: str) -> list[float]:
        """Return an array of numbers; empty where the key is missing.

        Raises:
            ArtefactError: it is something else.
        """
        values = self.metadata.get(key, [])
        if not isinstance(values, list) or any(isinstance(value, str) for value in values):
            self.fail(f"metadata {key} is no array of numbers")
        return [float(value) for value in values]

    def refuse(self, message: str, hint: str | None = None) -> NoReturn:
        """Say that this file asks for what we cannot do, as an UnsupportedError."""
        raise UnsupportedError([Problem(key=SOURCE_KEY, file=self.path, message=message, hint=hint)])

    def fail(self, message: str) -> NoReturn:
        """Say that this file contradicts itself or lacks what it must have, as an ArtefactError."""
        message = f"{self.path}: no whole GGUF file: {message}"
        raise ArtefactError(message, hint="Download or convert it again.")

    def _read_start(self, cursor: _Cursor) -> tuple[int, int]:
        magic = self._bytes[:4].tobytes()
        if magic != b"GGUF":
            self.fail(f"it begins with {magic!r}")
        cursor.position = 4
        version = cursor.scalar("<I")
        if version not in _VERSIONS:
            allowed = " and ".join(map(str, _VERSIONS))
            hint = f"Readable: little-endian versions {allowed}. Convert the model again with a current llama.cpp."
            self.refuse(f"is GGUF version {version}", hint)
        return int(cursor.scalar("<Q")), int(cursor.scalar("<Q"))

    def _refuse_part(self) -> None:
        num_parts = self.metadata.get("split.count", 0)
        if isinstance(num_parts, int) and num_parts > 1:
            hint = "Join them with llama.cpp's `llama-gguf-split --merge`."
            self.refuse(f"is one of {num_parts} parts of a model", hint)

    def _read_tensors(self, cursor: _Cursor, num_tensors: int) -> dict[str, GgufTensor]:
        entries = []
        for _ in range(num_tensors):
            name, num_dimensions = cursor.string(), int(cursor.scalar("<I"))
            if not 1 <= num_dimensions <= _MAX_DIMENSIONS:
                self.fail(f"tensor {name} has {num_dimensions} dimensions")
            # ggml writes the innermost dimension first.
            shape = tuple(int(cursor.scalar("<Q")) for _ in range(num_dimensions))[::-1]
            entries.append((name, shape, int(cursor.scalar("<I")), int(cursor.scalar("<Q"))))
        alignment = self.get("general.alignment", int, _DEFAULT_ALIGNMENT)
        if alignment <= 0:
            self.fail(f"its alignment is {alignment}")
        start = -(-cursor.position // alignment) * alignment
        return {name: self._tensor(name, shape, type_id, start + offset) for name, shape, type_id, offset in entries}

    def _tensor(self, name: str, shape: tuple[int, ...], type_id: int, offset: int) -> GgufTensor:
        try:
            from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
        except ImportError as error:
            message = "the gguf package is not installed"
            raise ToolchainError(message, hint='Install it: pip install "scalellm-trt[cpu]".') from error
        try:
            ggml_type = GGMLQuantizationType(type_id)
        except ValueError:
            self.refuse(f"tensor {name} has the unknown type {type_id}")
        block_size, block_bytes = GGML_QUANT_SIZES[ggml_type]
        if shape[-1] % block_size:
            self.fail(f"tensor {name} has rows of {shape[-1]}, no multiple of {ggml_type.name}'s {block_size}")
        tensor = GgufTensor(
            name=name,
            shape=shape,
            type_name=ggml_type.name,
            offset=offset,
            row_bytes=shape[-1] // block_size * block_bytes,
        )
        if offset + tensor.num_rows * tensor.row_bytes > len(self._bytes):
            self.fail(f"tensor {name} ends after the file's {len(self._bytes)} bytes")
        return tensor


class _Cursor:
    """A position in the header that moves on with each read; `struct.error` and ValueError mean a damaged file."""

    def __init__(self, data: npt.NDArray[np.uint8]) -> None:
        self.data = data.data
        self.position = 0

    def scalar(self, code: str) -> int | float | bool:
        (value,) = struct.unpack_from(code, self.data, self.position)
        self.position += struct.calcsize(code)
        return value  # type: ignore[no-any-return]  # struct is untyped

    def string(self) -> str:
        length = int(self.scalar("<Q"))
        return bytes(self._take(length)).decode("utf-8")

    def value(self) -> Value:
        kind = int(self.scalar("<I"))
        return self._array() if kind == _ARRAY else self._single(kind)

    def _single(self, kind: int) -> Scalar:
        if kind == _STRING:
            return self.string()
        if kind not in _SCALARS:
            message = f"a metadata value has the unknown type {kind}"
            raise ValueError(message)
        return self.scalar(_SCALARS[kind])

    def _array(self) -> list[Scalar]:
        kind, length = int(self.scalar("<I")), int(self.scalar("<Q"))
        if kind == _STRING:
            return [self.string() for _ in range(length)]
        if kind not in _SCALARS:
            message = f"a metadata array has elements of the unknown type {kind}"
            raise ValueError(message)
        dtype = np.dtype(_SCALARS[kind])
        values: list[Scalar] = np.frombuffer(self._take(length * dtype.itemsize), dtype=dtype).tolist()
        return values

    def _take(self, num_bytes: int) -> memoryview:
        taken = self.data[self.position : self.position + num_bytes]
        if len(taken) != num_bytes:
            raise ValueError("it is cut short")
        self.position += num_bytes
        return taken

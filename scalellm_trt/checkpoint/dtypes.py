"""Element types of safetensors files as numpy sees them, and conversions that need no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

StoredDtype = Literal["F32", "F16", "BF16", "I8", "U8", "F8_E4M3"]
CheckpointDtype = Literal["float16", "bfloat16", "float32"]
FloatArray: TypeAlias = NDArray[np.floating[Any]]
RawArray: TypeAlias = NDArray[Any]
"""Elements as they lie in a file: of the numpy type that `RAW_DTYPES` gives."""

STORED_DTYPES: Final[dict[CheckpointDtype, StoredDtype]] = {"float16": "F16", "bfloat16": "BF16", "float32": "F32"}
"""The name that safetensors gives to each type of the 16-bit (or 32-bit) tensors of a checkpoint."""

# How the bytes lie in memory. numpy has neither bfloat16 nor float8: their bits are carried as integers.
RAW_DTYPES: Final[dict[StoredDtype, DTypeLike]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "F8_E4M3": np.dtype("u1"),
}

FLOAT_DTYPES: Final[frozenset[StoredDtype]] = frozenset({"F32", "F16", "BF16"})

_ALL_EXPONENT_BITS: Final[dict[StoredDtype, int]] = {"F32": 0x7F800000, "F16": 0x7C00, "BF16": 0x7F80}


def item_size(dtype: StoredDtype) -> int:
    """Bytes of one element."""
    return np.dtype(RAW_DTYPES[dtype]).itemsize


def _float8_e4m3_table() -> NDArray[np.float32]:
    """Value of each of the 256 codes of OCP E4M3 (bias 7, no infinities, 0x7F and 0xFF are NaN)."""
    codes = np.arange(256)
    exponent, mantissa = (codes >> 3) & 0xF, codes & 0x7
    magnitude = np.where(exponent == 0, mantissa * 2.0**-9, (8 + mantissa) * 2.0 ** (exponent - 10.0))
    magnitude[(codes & 0x7F) == 0x7F] = np.nan
    return np.where(codes & 0x80, -magnitude, magnitude).astype(np.float32)


def to_float32(raw: RawArray, dtype: StoredDtype) -> NDArray[np.float32]:
    """Return the values of `raw`, which holds elements of `dtype` as `RAW_DTYPES` says, as float32."""
    if dtype == "BF16":
        return np.left_shift(raw, 16, dtype=np.uint32, casting="unsafe").view(np.float32)
    if dtype == "F8_E4M3":
        return _float8_e4m3_table()[raw.astype(np.intp)]
    return raw.astype(np.float32, copy=False)


def from_float32(values: NDArray[np.float32], dtype: StoredDtype) -> RawArray:
    """Round finite float32 to `dtype` (F32, F16 or BF16), nearest with ties to even; the result is raw.

    A value outside the range of F16 becomes infinite: see `is_finite`.
    """
    if dtype == "BF16":
        bits = values.view(np.uint32)
        rounded = (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16
        return rounded.astype(np.uint16)
    with np.errstate(over="ignore"):
        return values.astype(RAW_DTYPES[dtype], copy=False)


def convert(raw: RawArray, source: StoredDtype, target: StoredDtype) -> RawArray:
    """Return `raw` of type `source` as raw elements of `target`; the same array when nothing changes."""
    return raw if source == target else from_float32(to_float32(raw, source), target)


def is_finite(raw: RawArray, dtype: StoredDtype) -> bool:
    """Tell whether no element of a float array is NaN or infinite.

    Those are the elements whose exponent bits are all set: an integer maximum over the bits without the sign decides.
    """
    bits: RawArray = raw.reshape(-1).view(np.uint32 if dtype == "F32" else np.uint16)
    magnitudes = bits & np.iinfo(bits.dtype).max // 2
    return bits.size == 0 or int(magnitudes.max()) < _ALL_EXPONENT_BITS[dtype]


def round_to(values: NDArray[np.float32], dtype: CheckpointDtype) -> NDArray[np.float32]:
    """Return `values` rounded to what `dtype` can hold, still as float32."""
    stored = STORED_DTYPES[dtype]
    return to_float32(from_float32(values, stored), stored)

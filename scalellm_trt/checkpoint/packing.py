"""Two signed 4-bit integers in one byte, low nibble first: along output rows (TensorRT-LLM) or input columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def pack_rows(values: NDArray[np.int8]) -> NDArray[np.int8]:
    """Pack (out, in) integers within [-8, 7] to (out / 2, in): even rows low, odd rows high.

    This is how AWQ checkpoints store weights (ModelOpt, `pack_int4_in_uint8`; int8 in the TensorRT-LLM checkpoint).
    """
    return ((values[1::2] << 4) | (values[0::2] & 0x0F)).astype(np.int8)


def unpack_rows(packed: NDArray[np.int8]) -> NDArray[np.int8]:
    """Return the (out, in) integers of `pack_rows`."""
    rows, columns = packed.shape
    values = np.empty((2 * rows, columns), np.int8)
    # Shifting left first moves the nibble's sign bit to where the arithmetic right shift copies it from.
    values[0::2] = (packed << 4) >> 4
    values[1::2] = packed >> 4
    return values


def pack_columns(values: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Pack (out, in) integers within [-8, 7] to (out, in / 2): even columns low, odd columns high.

    This is the memory of a row-major `i4` tensor of shape (out, in) in OpenVINO.
    """
    codes = values.view(np.uint8)
    return ((codes[:, 1::2] << 4) | (codes[:, 0::2] & 0x0F)).astype(np.uint8, copy=False)


def unpack_columns(packed: NDArray[np.uint8]) -> NDArray[np.int8]:
    """Return the (out, in) integers of `pack_columns`."""
    rows, columns = packed.shape
    codes = packed.view(np.int8)
    values = np.empty((rows, 2 * columns), np.int8)
    values[:, 0::2] = (codes << 4) >> 4
    values[:, 1::2] = codes >> 4
    return values

"""The weight-only rule: a float matrix in, signed integers and one scale per output channel out.

`trtllm-build` applies it to the 16-bit weights of a W8A16 or W4A16 checkpoint when it loads them (TensorRT-LLM,
`symmetric_quantize_last_axis_of_batched_matrix`): `scale = amax / 2^(bits-1)` in float32, `round(w / scale)` with
halves away from zero, clipped to `[-2^(bits-1), 2^(bits-1) - 1]`; the scale is then stored in the checkpoint's dtype.
ModelOpt and most texts divide by `2^(bits-1) - 1` instead. Any other compiler of the same files must use this rule.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from scalellm_trt.checkpoint.dtypes import CheckpointDtype, FloatArray, round_to

if TYPE_CHECKING:
    from numpy.typing import NDArray

WeightBits = Literal[8, 4]

# Added before truncation, it rounds halves away from zero: 0.5 + 0.49999997 is 1.0 in float32, 0.49999997 twice is not.
# Adding 0.5 would also lift the largest float below each half.
_ALMOST_HALF: Final = np.nextafter(np.float32(0.5), np.float32(0))
# Work on pieces that stay in the processor's cache: 0.5 MiB of float32.
_CHUNK_ELEMENTS: Final = 1 << 17
_SIGN_AND_VALUE: Final = np.int32(0x8FFFE000 - (1 << 32))


def native_quantize(
    weight: FloatArray, bits: WeightBits, dtype: CheckpointDtype
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Quantize `weight` as `trtllm-build` does.

    Args:
        weight: (out, in) float16 or float32, finite.
        bits: 8 or 4.
        dtype: the checkpoint's dtype, in which scales are stored.

    Returns:
        values: (out, in) int8, within [-128, 127] or [-8, 7].
        scales: (out,) float32, rounded to `dtype`. A row of zeros has scale 0 and values 0.
    """
    rows, columns = weight.shape
    values = np.empty((rows, columns), np.int8)
    scales = np.empty(rows, np.float32)
    step = max(1, _CHUNK_ELEMENTS // max(1, columns))
    scratch = np.empty((2, min(step, rows), columns), np.float32)
    for start in range(0, rows, step):
        piece = slice(start, min(start + step, rows))
        scaled, halves = scratch[:, : piece.stop - start]
        _load(weight[piece], scaled)
        scales[piece] = np.maximum(scaled.max(axis=1), -scaled.min(axis=1)) / np.float32(2 ** (bits - 1))
        divisors = np.where(scales[piece] > 0, scales[piece], np.float32(1))
        np.divide(scaled, divisors[:, None], out=scaled)
        np.copysign(_ALMOST_HALF, scaled, out=halves)
        np.add(scaled, halves, out=scaled)
        np.minimum(scaled, np.float32(2 ** (bits - 1) - 1), out=scaled)  # below, the scale itself is the limit
        np.copyto(values[piece], scaled, casting="unsafe")
    return values, round_to(scales, dtype)


def _load(weight: FloatArray, out: NDArray[np.float32]) -> None:
    """Copy finite floats to float32; float16 by integer arithmetic, several times as fast as numpy's own conversion.

    Shifted left by 13 bits, exponent and mantissa of a float16 are those of a float32 that is 2^112 times too small
    (the exponent biases are 15 and 127); a denormal comes out right too.
    """
    if weight.dtype != np.float16:
        np.copyto(out, weight)
        return
    bits = out.view(np.int32)
    np.copyto(bits, weight.view(np.int16))  # the sign fills the upper half
    np.left_shift(bits, 13, out=bits)
    np.bitwise_and(bits, _SIGN_AND_VALUE, out=bits)
    np.multiply(out, np.float32(2.0**112), out=out)

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
# Work on pieces that stay in the processor's cache: about 1 MiB of float32.
_CHUNK_ELEMENTS: Final = 1 << 18


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
    for start in range(0, rows, step):
        piece = slice(start, start + step)
        values[piece], scales[piece] = _quantize_rows(weight[piece], 2 ** (bits - 1))
    return values, round_to(scales, dtype)


def _quantize_rows(weight: FloatArray, levels: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    scaled = weight.astype(np.float32)
    scales = np.maximum(scaled.max(axis=1), -scaled.min(axis=1)) / np.float32(levels)
    np.divide(scaled, np.where(scales > 0, scales, np.float32(1))[:, None], out=scaled)
    np.add(scaled, np.copysign(_ALMOST_HALF, scaled), out=scaled)
    np.clip(scaled, -levels, levels - 1, out=scaled)
    return scaled.astype(np.int8), scales

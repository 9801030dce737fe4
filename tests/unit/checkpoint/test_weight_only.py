"""`weight_only`: the numbers that trtllm-build computes, against a slow transcription of the rule."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from scalellm_trt.checkpoint.weight_only import WeightBits, native_quantize

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scalellm_trt.checkpoint.dtypes import FloatArray


def floats(values: object) -> NDArray[np.float32]:
    return np.asarray(values, np.float32)


halves = st.floats(-1e3, 1e3, width=16)


def slow_quantize(row: FloatArray, bits: int) -> tuple[list[int], float]:
    """One output channel, an element at a time, in float32 as the C++ routine does."""
    levels = 2 ** (bits - 1)
    scale = np.float32(max(abs(float(value)) for value in row)) / np.float32(levels)
    values = []
    for value in row:
        quotient = float(np.float32(value) / scale) if scale > 0 else 0.0
        rounded = math.floor(abs(quotient) + 0.5) * (1 if quotient >= 0 else -1)  # exact: a double holds the sum
        values.append(max(-levels, min(levels - 1, rounded)))
    return values, float(scale)


@settings(max_examples=200)
@given(arrays(np.float16, (3, 8), elements=halves), st.sampled_from([8, 4]))
def test_values_and_scales_are_those_of_the_slow_rule(weight: FloatArray, bits: WeightBits) -> None:
    values, scales = native_quantize(weight, bits, "float32")
    for row, got, scale in zip(weight, values, scales, strict=True):
        expected, expected_scale = slow_quantize(row, bits)
        assert (got.tolist(), float(scale)) == (expected, expected_scale)


@pytest.mark.parametrize("bits", [8, 4])
def test_halves_round_away_from_zero_and_their_neighbours_do_not(bits: WeightBits) -> None:
    levels = 2 ** (bits - 1)
    exact = np.arange(levels - 1, dtype=np.float32) + np.float32(0.5)
    below, above = np.nextafter(exact, np.float32(0)), np.nextafter(exact, np.float32(1e9))
    row = np.concatenate([exact, -exact, below, -below, above, -above, floats([-levels])])
    values, scales = native_quantize(row[None], bits, "float32")
    up = np.arange(1, levels)
    assert scales.tolist() == [1.0]
    expected = [up, -up, up - 1, 1 - up, up, -up, np.array([-levels])]
    np.testing.assert_array_equal(values[0], np.concatenate(expected))


def test_the_largest_positive_weight_is_clipped_and_the_largest_negative_is_exact() -> None:
    values, scales = native_quantize(floats([[64.0, -64.0, 0.0, 32.0]]), 8, "float16")
    assert (values.tolist(), scales.tolist()) == ([[127, -128, 0, 64]], [0.5])


def test_a_row_of_zeros_stays_zero() -> None:
    values, scales = native_quantize(np.zeros((2, 4), np.float16), 4, "float16")
    assert not values.any()
    assert scales.tolist() == [0.0, 0.0]


def test_the_division_uses_the_unrounded_scale() -> None:
    weight = floats([[0.3, 0.1, -0.29999]])
    for dtype in ("float16", "bfloat16", "float32"):
        values, scales = native_quantize(weight, 8, dtype)
        assert values.tolist() == native_quantize(weight, 8, "float32")[0].tolist()
        assert abs(float(scales[0]) - 0.3 / 128) <= 0.3 / 128 * 2**-8
    assert native_quantize(weight, 8, "float16")[1] == np.float32(np.float16(np.float32(0.3) / 128))


def test_every_finite_float16_is_converted_exactly() -> None:
    codes = np.arange(65536, dtype=np.uint16).view(np.float16)
    codes = codes[np.isfinite(codes)]
    as_halves, as_floats = codes[:, None], codes[:, None].astype(np.float32)
    for bits in (8, 4):
        got, expected = (native_quantize(rows, bits, "float32") for rows in (as_halves, as_floats))
        np.testing.assert_array_equal(got[0], expected[0])
        np.testing.assert_array_equal(got[1], expected[1])


def test_matrices_larger_than_a_piece_are_quantized_row_by_row() -> None:
    weight = np.random.default_rng(0).standard_normal((70, 3000)).astype(np.float16)
    values, scales = native_quantize(weight, 8, "float16")
    for row in (0, 42, 43, 69):
        alone, scale = native_quantize(weight[row : row + 1], 8, "float16")
        np.testing.assert_array_equal(values[row], alone[0])
        assert scales[row] == scale[0]
    error = np.abs(values * scales[:, None] - weight.astype(np.float32))
    assert np.all(error <= scales[:, None] * 1.01)


def test_rows_longer_than_a_piece_work() -> None:
    weight = np.random.default_rng(1).standard_normal((3, 1 << 18)).astype(np.float32)
    assert native_quantize(weight, 4, "bfloat16")[0].shape == weight.shape

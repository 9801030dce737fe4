"""`dtypes`: bfloat16, float16 and float8 by their bits."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalellm_trt.checkpoint.dtypes import (
    STORED_DTYPES,
    CheckpointDtype,
    convert,
    from_float32,
    is_finite,
    item_size,
    round_to,
    to_float32,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray


def floats(values: object) -> NDArray[np.float32]:
    return np.asarray(values, np.float32)


finite_floats = st.floats(width=32, allow_nan=False, allow_infinity=False)


def test_bfloat16_is_the_upper_half_of_a_float32() -> None:
    raw = np.array([0x3F80, 0xC000, 0x0000, 0x7F7F], np.uint16)
    np.testing.assert_array_equal(to_float32(raw, "BF16"), floats([1.0, -2.0, 0.0, 3.3895313892515355e38]))


@given(st.integers(0, 0xFFFF).filter(lambda code: code & 0x7F80 != 0x7F80))
def test_every_finite_bfloat16_survives_a_round_trip(code: int) -> None:
    raw = np.array([code], np.uint16)
    assert from_float32(to_float32(raw, "BF16"), "BF16") == raw


@given(finite_floats)
def test_bfloat16_is_the_nearest_with_ties_to_even(value: float) -> None:
    (bits,) = struct.unpack("<I", struct.pack("<f", value))
    below, rest = bits >> 16, bits & 0xFFFF
    expected = below + (rest > 0x8000 or (rest == 0x8000 and below & 1))
    assert int(from_float32(floats([value]), "BF16")[0]) == expected


def test_bfloat16_ties_go_to_the_even_neighbour() -> None:
    ties = np.array([0x3F808000, 0x3F818000, 0xBF808000, 0x3F808001], np.uint32).view(np.float32)
    assert from_float32(ties, "BF16").tolist() == [0x3F80, 0x3F82, 0xBF80, 0x3F81]


@given(finite_floats)
def test_float16_is_rounded_as_numpy_does_and_overflow_is_seen(value: float) -> None:
    raw = from_float32(floats([value]), "F16")
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(raw, floats([value]).astype(np.float16))
    assert is_finite(raw, "F16") == (abs(value) < 65520)


@pytest.mark.parametrize(
    ("code", "value"), [(0x00, 0.0), (0x01, 2**-9), (0x38, 1.0), (0x7E, 448.0), (0xFE, -448.0), (0x40, 2.0)]
)
def test_float8_e4m3_codes_have_the_values_of_the_ocp_format(code: int, value: float) -> None:
    assert to_float32(np.array([code], np.uint8), "F8_E4M3")[0] == value


def test_float8_e4m3_has_two_nans_and_no_infinity() -> None:
    values = to_float32(np.arange(256, dtype=np.uint8), "F8_E4M3")
    assert np.flatnonzero(~np.isfinite(values)).tolist() == [0x7F, 0xFF]


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F32"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_single_bad_element_is_seen(dtype: str, bad: float) -> None:
    values = floats([[1.0, -3e4], [0.0, 1e-8]])
    assert is_finite(from_float32(values, dtype), dtype)  # type: ignore[arg-type]
    values[1, 1] = bad
    raw = values.view(np.uint32) >> 16 if dtype == "BF16" else from_float32(values, dtype)  # type: ignore[arg-type]
    assert not is_finite(raw.astype(np.uint16) if dtype == "BF16" else raw, dtype)  # type: ignore[arg-type]


def test_nothing_is_finite_too() -> None:
    assert is_finite(np.empty(0, np.float16), "F16")


def test_no_conversion_gives_the_same_array() -> None:
    raw = np.zeros(3, np.uint16)
    assert convert(raw, "BF16", "BF16") is raw


@pytest.mark.parametrize("dtype", get_args(CheckpointDtype))
def test_rounding_is_idempotent_and_within_half_a_step(dtype: CheckpointDtype) -> None:
    values = floats([0.1, -1 / 3, 100.7])
    rounded = round_to(values, dtype)
    np.testing.assert_array_equal(round_to(rounded, dtype), rounded)
    steps = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 0.0}
    assert np.all(np.abs(rounded - values) <= steps[dtype] * np.abs(values))
    assert item_size(STORED_DTYPES[dtype]) == (4 if dtype == "float32" else 2)

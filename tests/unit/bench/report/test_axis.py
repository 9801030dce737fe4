from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalellm_trt.bench.report import axis


def test_a_linear_axis_begins_at_zero_and_ends_round() -> None:
    found = axis.linear([3.0, 87.0], 0, 100)
    assert found.ticks == (0, 20, 40, 60, 80, 100)
    assert [found.place(value) for value in (0, 50, 100, 500, -1)] == [0, 50, 100, 100, 0]
    assert axis.linear([], 0, 1).high == 0.25


def test_a_logarithmic_axis_lies_between_round_numbers() -> None:
    found = axis.logarithmic([30, 700], 0, 100)
    assert found.ticks == pytest.approx((20, 50, 100, 200, 500, 1000))
    assert found.place(20) == pytest.approx(0)
    assert found.place((20 * 1000) ** 0.5) == pytest.approx(50)
    assert axis.logarithmic([0.02, 90_000], 0, 1).ticks == pytest.approx((0.02, 0.1, 1, 10, 100, 1e3, 1e4, 1e5))
    assert axis.logarithmic([5, 5], 0, 1).ticks == pytest.approx((5, 10))


def test_chosen_ticks_are_kept_and_thinned_from_the_right() -> None:
    assert axis.logarithmic([1, 64], 0, 1, [1, 2, 4, 8, 16, 32, 64]).ticks == (1, 2, 4, 8, 16, 32, 64)
    many = axis.logarithmic([1, 20], 0, 1, range(1, 21)).ticks
    assert many[-1] == 20
    assert len(many) <= 8
    one = axis.logarithmic([4], 0, 1, [4])
    assert (one.low, one.high) == (2, 8)


@given(st.lists(st.floats(1e-6, 1e9), min_size=1), st.booleans())
def test_every_value_has_a_place_between_the_ends(values: list[float], is_log: bool) -> None:
    found = (axis.logarithmic if is_log else axis.linear)(values, 10, 90)
    assert all(10 <= found.place(value) <= 90.0001 for value in values)
    assert found.low <= min(values) * (1 + 1e-9) or not is_log
    assert found.high >= max(values) * (1 - 1e-9)

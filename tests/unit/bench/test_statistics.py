from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalellm_trt.bench import statistics

if TYPE_CHECKING:
    import random

samples = st.lists(st.floats(0.001, 1e6), min_size=1, max_size=60)


def test_percentiles_are_numpys() -> None:
    found = statistics.distribution([4.0, 1.0, 3.0, 2.0])
    assert found is not None
    assert {percent: each.value for percent, each in found.percentiles.items()} == pytest.approx(
        {50: 2.5, 90: 3.7, 95: 3.85, 99: 3.97}
    )
    assert (found.count, found.mean, found.minimum, found.maximum) == (4, 2.5, 1.0, 4.0)
    assert found.std == pytest.approx(np.std([1, 2, 3, 4], ddof=1))
    assert found.p50 is found.percentiles[50]


def test_one_sample_is_all_there_is_to_say() -> None:
    found = statistics.distribution([5.0])
    assert found is not None
    assert found.std == 0
    assert {(each.low, each.value, each.high) for each in found.percentiles.values()} == {(5.0, 5.0, 5.0)}
    assert statistics.distribution([]) is None
    assert statistics.clustered_distribution([[], []]) is None


@pytest.mark.parametrize("percent", [50, 90, 99])
@pytest.mark.parametrize("size", [2, 7, 100])
def test_the_law_of_a_percentile_is_that_of_drawn_resamples(size: int, percent: int) -> None:
    generator = np.random.default_rng(3)
    ordered = np.sort(generator.exponential(1.0, size))
    found = statistics.resampled_percentile(ordered, percent, np.random.default_rng(1))
    drawn = np.percentile(ordered[generator.integers(0, size, (statistics.NUM_RESAMPLES, size))], percent, axis=1)
    for limit in generator.uniform(ordered[0], ordered[-1], 40):
        assert (found <= limit).mean() == pytest.approx((drawn <= limit).mean(), abs=0.05)


def test_an_interval_holds_the_true_median_as_often_as_it_says() -> None:
    generator = np.random.default_rng(5)
    held = 0
    for _ in range(200):
        found = statistics.distribution([float(each) for each in generator.exponential(1.0, 80)])
        assert found is not None
        held += found.p50.low <= np.log(2) <= found.p50.high
    assert 180 <= held <= 200


def test_gaps_of_few_streams_have_a_wider_interval_than_as_many_independent_ones() -> None:
    generator = np.random.default_rng(5)
    streams = [[float(each) for each in generator.normal(10 + 3 * (place % 2), 0.1, 200)] for place in range(10)]
    clustered = statistics.clustered_distribution(streams)
    independent = statistics.distribution([each for stream in streams for each in stream])
    assert clustered is not None
    assert independent is not None
    for percent in statistics.PERCENTILES:
        assert clustered.percentiles[percent].value == independent.percentiles[percent].value
    width = clustered.p50.high - clustered.p50.low
    assert width > 2.5
    assert width > 5 * (independent.percentiles[90].high - independent.percentiles[90].low)


@settings(deadline=None)
@given(samples, st.randoms(use_true_random=False))
def test_order_does_not_matter_and_intervals_hold_their_figure(values: list[float], dice: random.Random) -> None:
    mixed = values.copy()
    dice.shuffle(mixed)
    found = statistics.distribution(values)
    assert found == statistics.distribution(mixed)
    assert found is not None
    for each in found.percentiles.values():
        assert found.minimum <= each.low <= each.value <= each.high <= found.maximum
    clustered = statistics.clustered_distribution([values, values])
    assert clustered is not None
    assert all(each.low <= each.value <= each.high for each in clustered.percentiles.values())


@settings(deadline=None)
@given(samples, st.sampled_from([0.25, 2.0, 8.0]))
def test_scaled_samples_have_scaled_figures(values: list[float], by: float) -> None:
    one, other = statistics.distribution(values), statistics.distribution([each * by for each in values])
    assert one is not None
    assert other is not None
    assert other.mean == pytest.approx(one.mean * by)
    for percent in statistics.PERCENTILES:
        assert other.percentiles[percent].value == pytest.approx(one.percentiles[percent].value * by)
        assert other.percentiles[percent].low == pytest.approx(one.percentiles[percent].low * by)
        assert other.percentiles[percent].high == pytest.approx(one.percentiles[percent].high * by)


def test_a_ratio_tells_which_is_slower_and_when_nobody_knows() -> None:
    generator = np.random.default_rng(2)
    slow, fast = ([float(each) for each in generator.normal(mean, 1, 100)] for mean in (20, 10))
    found = statistics.percentile_ratio(slow, fast)
    assert found is not None
    assert found.low > 1.8
    assert found.high < 2.2
    same = statistics.percentile_ratio(fast[:50], fast[50:])
    assert same is not None
    assert same.low < 1 < same.high
    assert statistics.percentile_ratio([], fast) is None
    assert statistics.percentile_ratio(fast, [0.0]) is None


def test_a_rate_is_the_sum_over_the_sum_and_its_interval_grows_with_the_difference_of_slices() -> None:
    steady, uneven = statistics.rate([10, 10, 10, 10], [2.0] * 4), statistics.rate([40, 0, 0, 0], [2.0] * 4)
    assert (steady.low, steady.value, steady.high) == (5, 5, 5)
    assert uneven.value == 5
    assert uneven.low == 0
    assert uneven.high > 10
    many = statistics.rate([10.0] * 3001, [2.0] * 3001)
    assert (many.low, many.value, many.high) == pytest.approx((5, 5, 5))
    assert statistics.rate([], []) == statistics.Interval(value=0, low=0, high=0)

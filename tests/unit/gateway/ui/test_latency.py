from __future__ import annotations

import random
from array import array
from collections import Counter

import pytest

from scalellm_trt.gateway.ui.latency import FIRST_S, NUM_BUCKETS, add, bucket, percentile_s


def test_percentiles_are_right_to_two_and_a_half_percent() -> None:
    random.seed(3)
    seconds = sorted(random.lognormvariate(-3, 1.5) for _ in range(5001))
    counts = Counter(bucket(each) for each in seconds)
    for share in (0.01, 0.5, 0.9, 0.99, 0.999):
        exact = seconds[-(-round(share * 1e6) * len(seconds) // 10**6) - 1]
        assert percentile_s(counts, share) == pytest.approx(exact, rel=0.026)


def test_buckets_cover_everything_and_never_go_back() -> None:
    numbers = [bucket(10 ** (power / 20)) for power in range(-140, 120)]
    assert numbers == sorted(numbers)
    assert (bucket(0.0), bucket(-1.0), bucket(FIRST_S), bucket(1e9)) == (0, 0, 0, NUM_BUCKETS - 1)
    assert bucket(999) < NUM_BUCKETS - 1


def test_one_latency_is_every_percentile_and_none_is_none() -> None:
    assert percentile_s({}, 0.5) is None
    assert percentile_s({bucket(0.2): 0}, 0.5) is None
    one = {bucket(0.2): 1}
    assert percentile_s(one, 0.01) == percentile_s(one, 0.99) == pytest.approx(0.2, rel=0.026)


def test_a_rank_counts_everything_below_it() -> None:
    counts = {bucket(0.01): 90, bucket(1.0): 10}
    assert percentile_s(counts, 0.9) == pytest.approx(0.01, rel=0.026)
    assert percentile_s(counts, 0.901) == pytest.approx(1.0, rel=0.026)


def test_many_are_counted_as_each_alone() -> None:
    random.seed(4)
    seconds = [0.0, -1.0, FIRST_S, 1e9, *(random.lognormvariate(-4, 3) for _ in range(3000))]
    counts = array("Q", bytes(8 * NUM_BUCKETS))
    add(counts, seconds[:1000])
    add(counts, [])
    add(counts, seconds[1000:])
    assert {number: count for number, count in enumerate(counts) if count} == Counter(map(bucket, seconds))

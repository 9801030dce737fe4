"""Samples in, percentiles with bootstrap confidence intervals out; seeded, so that equal records give equal figures.

A percentile is interpolated between the two nearest samples (numpy's default). An interval holds what 95% of resamples
of the same size say (percentile bootstrap). It knows the run it is made of: how much runs differ, only rounds can tell.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    Samples = NDArray[np.float64]

PERCENTILES = (50, 90, 95, 99)
CONFIDENCE = 0.95
NUM_RESAMPLES = 2000
SEED = 2024
MAX_PAIRS = 1000
NUM_BINS = 1024  # of pooled samples in clusters: an interval's ends are good to a thousandth of the samples


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A figure and the ends of its confidence interval, all in the figure's unit."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """Samples of one metric, in its unit.

    Attributes:
        count: samples; at least 1.
        std: standard deviation of the samples, 0 for one.
        percentiles: by `PERCENTILES`.
    """

    count: int
    mean: float
    std: float
    minimum: float
    maximum: float
    percentiles: Mapping[int, Interval]

    @property
    def p50(self) -> Interval:
        """The median."""
        return self.percentiles[50]


def distribution(values: Sequence[float]) -> Distribution | None:
    """Describe independent samples; None where there are none. Their order does not matter."""
    if not values:
        return None
    found = np.sort(np.asarray(values, dtype=np.float64))
    generator = np.random.default_rng(SEED)
    intervals = {
        percent: _interval(float(np.percentile(found, percent)), resampled_percentile(found, percent, generator))
        for percent in PERCENTILES
    }
    return _described(found, intervals)


def clustered_distribution(clusters: Sequence[Sequence[float]]) -> Distribution | None:
    """Describe samples that come in clusters (the gaps of one stream): whole clusters are resampled, not samples.

    Gaps of one stream resemble each other, so as independent samples they would promise too narrow an interval.
    """
    filled = [np.asarray(cluster, dtype=np.float64) for cluster in clusters if len(cluster)]
    if not filled:
        return None
    found = np.sort(np.concatenate(filled))
    edges = np.unique(np.percentile(found, np.linspace(0, 100, NUM_BINS + 1), method="higher"))
    counts = np.stack([np.bincount(np.searchsorted(edges, each), minlength=len(edges)) for each in filled])
    draws = np.random.default_rng(SEED).multinomial(len(filled), np.full(len(filled), 1 / len(filled)), NUM_RESAMPLES)
    below = np.cumsum(draws.astype(np.float64) @ counts.astype(np.float64), axis=1)
    intervals = {}
    for percent in PERCENTILES:
        reached = below >= (percent / 100 * below[:, -1:])
        intervals[percent] = _interval(float(np.percentile(found, percent)), edges[np.argmax(reached, axis=1)])
    return _described(found, intervals)


def resampled_percentile(ordered: Samples, percent: float, generator: np.random.Generator) -> Samples:
    """Return the percentile of `NUM_RESAMPLES` resamples of ascending samples, without drawing them.

    The k-th smallest of n draws from n samples is the sample at floor(n * U) where U ~ Beta(k, n - k + 1), the k-th
    smallest of n uniform numbers; the next one divides what is left above U as 1 - V^(1 / (n - k)). So a percentile
    costs the same for ten samples and for a million, and its law is exactly the bootstrap's.
    """
    size = len(ordered)
    place = (size - 1) * percent / 100
    below = int(place)
    at = generator.beta(below + 1, size - below, NUM_RESAMPLES)
    lower: Samples = ordered[_positions(at, size)]
    if below + 1 >= size:
        return lower
    above: Samples = 1 - (1 - at) * np.power(generator.random(NUM_RESAMPLES), 1 / (size - below - 1))
    upper = ordered[_positions(above, size)]
    return np.asarray(lower + (place - below) * (upper - lower))


def percentile_ratio(numerator: Sequence[float], denominator: Sequence[float], percent: float = 50) -> Interval | None:
    """Return how many times larger one percentile is than another; None without samples on both sides, or over 0."""
    if not numerator or not denominator:
        return None
    over, under = (np.sort(np.asarray(values, dtype=np.float64)) for values in (numerator, denominator))
    divisor = float(np.percentile(under, percent))
    if divisor == 0 or under[0] <= 0:
        return None
    generator = np.random.default_rng(SEED)
    ratios = resampled_percentile(over, percent, generator) / resampled_percentile(under, percent, generator)
    return _interval(float(np.percentile(over, percent)) / divisor, ratios)


def rate(amounts: Sequence[float], seconds: Sequence[float]) -> Interval:
    """Return sum(amounts) / sum(seconds), with pairs of both resampled; all zero where no time passed."""
    total_s = float(np.sum(seconds))
    if total_s <= 0:
        return Interval(value=0.0, low=0.0, high=0.0)
    value = float(np.sum(np.asarray(amounts, dtype=np.float64))) / total_s
    return _interval(value, resampled_rate(amounts, seconds, np.random.default_rng(SEED)))


def resampled_rate(amounts: Sequence[float], seconds: Sequence[float], generator: np.random.Generator) -> Samples:
    """Return sum(amounts) / sum(seconds) of `NUM_RESAMPLES` resamples of the pairs; some time must have passed.

    More than `MAX_PAIRS` are added up to as many groups of neighbours first: a sum of many needs no finer ones. A
    resample that happens to hold no time says nothing, and gets the rate of all.
    """
    amount, duration = np.asarray(amounts, dtype=np.float64), np.asarray(seconds, dtype=np.float64)
    if len(amount) > MAX_PAIRS:
        begins = np.linspace(0, len(amount), MAX_PAIRS, endpoint=False).astype(np.int64)
        amount, duration = np.add.reduceat(amount, begins), np.add.reduceat(duration, begins)
    drawn = generator.integers(0, len(amount), (NUM_RESAMPLES, len(amount)))
    drawn_amount, drawn_s = amount[drawn].sum(axis=1), duration[drawn].sum(axis=1)
    rates: Samples = np.full(NUM_RESAMPLES, amount.sum() / duration.sum())
    np.divide(drawn_amount, drawn_s, out=rates, where=drawn_s > 0)
    return rates


def scaled(found: Interval, by: float) -> Interval:
    """Return an interval in another unit."""
    return Interval(value=found.value * by, low=found.low * by, high=found.high * by)


def _positions(uniform: Samples, size: int) -> NDArray[np.int64]:
    return np.minimum((uniform * size).astype(np.int64), size - 1)


def _interval(value: float, resamples: Samples) -> Interval:
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(resamples, [tail, 100 - tail])
    # Interpolation may leave the value a rounding error outside of resamples that are all alike.
    return Interval(value=value, low=min(float(low), value), high=max(float(high), value))


def _described(ordered: Samples, intervals: Mapping[int, Interval]) -> Distribution:
    return Distribution(
        count=len(ordered),
        mean=float(ordered.mean()),
        std=float(ordered.std(ddof=1)) if len(ordered) > 1 else 0.0,
        minimum=float(ordered[0]),
        maximum=float(ordered[-1]),
        percentiles=intervals,
    )

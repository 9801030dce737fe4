"""Latencies counted in buckets that grow by 5%: constant memory, percentiles that are right to 2.5%."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from array import array
    from collections.abc import Mapping, Sequence

FIRST_S: Final = 1e-4
GROWTH: Final = 1.05
NUM_BUCKETS: Final = 340
"""Up to some 1,450 s; what takes longer is counted as that."""
_LAST: Final = NUM_BUCKETS - 1
_PER_E: Final = 1 / math.log(GROWTH)
_OFFSET: Final = 1 - math.log(FIRST_S) * _PER_E
_log = math.log


def bucket(seconds: float) -> int:
    """Return the bucket of a latency: 0 up to 0.1 ms, each further one 5% wider than the one before."""
    if seconds <= FIRST_S:
        return 0
    number = int(_log(seconds) * _PER_E + _OFFSET)
    return number if number < NUM_BUCKETS else _LAST


def add(counts: array[int], latencies_s: Sequence[float]) -> None:
    """Count many latencies at once, each in its `bucket`."""
    if latencies_s:
        seconds = np.asarray(latencies_s)
        numbers = (np.log(np.maximum(seconds, FIRST_S)) * _PER_E + _OFFSET).astype(np.int64)
        numbers = np.minimum(np.where(seconds <= FIRST_S, 0, numbers), _LAST)
        view = np.frombuffer(counts, np.uint64)
        view += np.bincount(numbers, minlength=NUM_BUCKETS).astype(np.uint64)


def percentile_s(counts: Mapping[int, int], share: float) -> float | None:
    """Return the latency that `share` (0 to 1) of all do not exceed, in seconds; None where nothing was counted.

    Args:
        counts: how many by bucket; buckets without any may be missing.
        share: 0.5 is the median.
    """
    rank = math.ceil(share * sum(counts.values()))
    for number in sorted(counts):
        rank -= counts[number]
        if rank <= 0 and counts[number]:
            return FIRST_S if number == 0 else FIRST_S * GROWTH ** (number - 0.5)
    return None

"""Two sides measured in turn, in; the median of their ratio and how sure it is, out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

NUM_RESAMPLES = 10_000
SEED = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """The median over pairs, with its 95% interval."""

    median: float
    low: float
    high: float

    def misses(self, limit: float) -> bool:
        """Tell whether the whole interval lies below `limit`."""
        return self.high < limit

    def __str__(self) -> str:
        """Render as `0.98 [0.95, 1.01]`."""
        return f"{self.median:.3f} [{self.low:.3f}, {self.high:.3f}]"


def of_pairs(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """Return the ratio of values that were measured one after the other.

    The interval is a percentile bootstrap: the pairs are drawn with replacement, the median is taken of each draw.
    """
    ratios = np.array(ours) / np.array(theirs)
    draws = np.random.default_rng(SEED).choice(ratios, size=(NUM_RESAMPLES, len(ratios)))
    low, high = np.percentile(np.median(draws, axis=1), [2.5, 97.5])
    return Ratio(median=float(np.median(ratios)), low=float(low), high=float(high))

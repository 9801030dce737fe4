"""When requests of an open loop are due: at equal distances, or as independent users come."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from scalellm_trt.bench.workload import random_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scalellm_trt.bench.run import LoadMode


def due_times_s(
    mode: LoadMode, rate_per_s: float, seed: int, *, count: int | None, duration_s: float | None
) -> Iterator[float]:
    """Yield seconds from the beginning; the same seed, the same times.

    Constant: request i is due at i / rate. Poisson: gaps are exponentially distributed with the mean 1 / rate.
    """
    drawing = random_of(seed, "arrivals", rate_per_s)
    at_s = 0.0
    for number in itertools.count():
        if count is not None and number >= count:
            return
        if mode == "constant":
            at_s = number / rate_per_s
        elif number:
            at_s += drawing.expovariate(rate_per_s)
        if duration_s is not None and at_s >= duration_s:
            return
        yield at_s

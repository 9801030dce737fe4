"""When tokens were delivered in, decode speed and first-token times out."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence


MIN_DELIVERIES: Final = 2


def tokens_per_s(streams: Sequence[Sequence[tuple[float, int]]]) -> float:
    """Return the decode speed of all streams together.

    The window opens when every stream has its first token and closes when the first stream ends. Each stream counts
    from its first delivery in the window to its last one: so nothing has to be assumed about when the tokens of a
    delivery that began before the window were made, and a stream that sends tokens together is neither favoured nor
    punished. (To spread such a delivery evenly would: the steps in which prompts come in are the long ones.)

        speed = sum over streams of (tokens of its deliveries in the window but the first) / (last - first)

    Raises:
        ValueError: a stream has less than two deliveries in the window, for example because it ended before another
            began.
    """
    opened = max(deliveries[0][0] for deliveries in streams)
    closed = min(deliveries[-1][0] for deliveries in streams)
    speed = 0.0
    for deliveries in streams:
        inside = [(time, count) for time, count in deliveries if opened <= time <= closed]
        if len(inside) < MIN_DELIVERIES:
            raise ValueError("a stream has no two deliveries while all generate: take more tokens per stream")
        (first, _), *others = inside
        speed += sum(count for _, count in others) / (others[-1][0] - first)
    return speed


def first_token_s(streams: Sequence[Sequence[tuple[float, int]]]) -> float:
    """Return the median time until a stream's first delivery."""
    return float(np.median([deliveries[0][0] for deliveries in streams]))


def num_tokens(streams: Sequence[Sequence[tuple[float, int]]]) -> int:
    """Return the tokens of all deliveries."""
    return sum(count for deliveries in streams for _, count in deliveries)


def longest_gap_s(deliveries: Sequence[tuple[float, int]], *, after: float = 0.0) -> float:
    """Return the longest wait between two deliveries of a stream that ended later than `after`."""
    times = [time for time, _ in deliveries]
    return max(later - earlier for earlier, later in itertools.pairwise(times) if later > after)

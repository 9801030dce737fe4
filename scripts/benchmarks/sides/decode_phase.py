"""When tokens were delivered in, decode speed and first-token times out."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence


def tokens_per_s(streams: Sequence[Sequence[tuple[float, int]]]) -> float:
    """Return the decode speed of all streams together.

    The window opens when every stream has its first token and closes when the first stream ends. A delivery of
    several tokens counts as made evenly over the time since the stream's delivery before: so a stream that sends
    tokens together is neither favoured nor punished by where its deliveries lie in the window.

        speed = sum over streams of (made(close) - made(open)) / (close - open)

    Raises:
        ValueError: a stream ended before another began, so that there is no such window.
    """
    opened = max(deliveries[0][0] for deliveries in streams)
    closed = min(deliveries[-1][0] for deliveries in streams)
    if closed <= opened:
        raise ValueError("a stream ended before another began: take more tokens per stream")
    made = 0.0
    for deliveries in streams:
        times, counts = zip(*deliveries, strict=True)
        at_open, at_close = np.interp([opened, closed], times, np.cumsum(counts))
        made += float(at_close - at_open)
    return made / (closed - opened)


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

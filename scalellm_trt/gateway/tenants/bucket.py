"""A token bucket as arithmetic: what it held when, and what it holds now. Whoever uses it keeps both numbers."""

from __future__ import annotations

from dataclasses import dataclass

MINUTE_S = 60.0


@dataclass(frozen=True, slots=True)
class Bucket:
    """Holds one minute's worth, and is refilled all the time.

    So a pause is followed by at most a minute's worth at once; over a time of t seconds no more than
    `per_minute * (1 + t / 60)` is taken.
    """

    per_minute: int

    def level(self, before: float, since_s: float) -> float:
        """Return what it holds `since_s` seconds after it held `before`."""
        return min(float(self.per_minute), before + max(since_s, 0.0) * self.per_minute / MINUTE_S)

    def wait_s(self, level: float, wanted: float) -> float:
        """Return the seconds until it holds `wanted`; infinite for more than it can hold."""
        if wanted > self.per_minute:
            return float("inf")
        return max(wanted - level, 0.0) * MINUTE_S / self.per_minute

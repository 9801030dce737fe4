"""A range of values in, places on a line and round ticks out; linear, or logarithmic where values span magnitudes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_TICKS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """Values from `low` to `high` on places from `begin` to `end`."""

    low: float
    high: float
    begin: float
    end: float
    is_log: bool
    ticks: tuple[float, ...]

    def place(self, value: float) -> float:
        """Return where a value lies; what lies outside is put on the edge."""
        value = min(max(value, self.low), self.high)
        if self.is_log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.begin + share * (self.end - self.begin)


def linear(values: Iterable[float], begin: float, end: float) -> Axis:
    """Return an axis from 0 to a round number above the largest value."""
    top = max((value for value in values if math.isfinite(value)), default=0.0)
    step = _round_step(top / MAX_TICKS) if top > 0 else 0.25
    count = max(1, math.ceil(top / step - 1e-9))
    ticks = tuple(step * number for number in range(count + 1))
    return Axis(low=0.0, high=ticks[-1], begin=begin, end=end, is_log=False, ticks=ticks)


def logarithmic(values: Iterable[float], begin: float, end: float, ticks: Iterable[float] | None = None) -> Axis:
    """Return an axis between round numbers around all values above 0; `ticks` are taken as they are where given."""
    positive = [value for value in values if value > 0 and math.isfinite(value)]
    low, high = (min(positive), max(positive)) if positive else (1.0, 10.0)
    if ticks is not None:
        chosen = sorted(set(ticks))
        low, high = min(low, chosen[0]), max(high, chosen[-1])
        if low == high:
            low, high = low / 2, high * 2
        return Axis(low=low, high=high, begin=begin, end=end, is_log=True, ticks=_thinned(chosen))
    marks = [mark for mark in _marks(low, high)]
    if len(marks) > MAX_TICKS + 2:
        first, last = marks[0], marks[-1]
        marks = [mark for mark in marks if mark in (first, last) or _is_decade(mark)]
    return Axis(low=marks[0], high=marks[-1], begin=begin, end=end, is_log=True, ticks=tuple(marks))


def _marks(low: float, high: float) -> list[float]:
    """Return 1, 2, 5, 10, … from below `low` to above `high`, two at least."""
    steps = [
        digit * 10.0**power
        for power in range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
        for digit in (1, 2, 5)
    ]
    begin = max(place for place, step in enumerate(steps) if step <= low * (1 + 1e-9))
    end = min(place for place, step in enumerate(steps) if step >= high * (1 - 1e-9))
    return steps[begin : max(end, begin + 1) + 1]


def _is_decade(mark: float) -> bool:
    return math.isclose(math.log10(mark) % 1, 0, abs_tol=1e-9) or math.isclose(math.log10(mark) % 1, 1, abs_tol=1e-9)


def _thinned(ticks: list[float]) -> tuple[float, ...]:
    every = -(-len(ticks) // (MAX_TICKS + 2))
    return tuple(ticks[::-1][::every][::-1])


def _round_step(least: float) -> float:
    power = 10.0 ** math.floor(math.log10(least))
    return next(digit * power for digit in (1, 2, 2.5, 5, 10) if digit * power >= least * (1 - 1e-9))

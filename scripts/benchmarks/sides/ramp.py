"""A load that climbs by steps and comes down again, and what was seen at each step of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from scripts.benchmarks.sides.line_chart import Line, Panel, svg

if TYPE_CHECKING:
    from collections.abc import Sequence

LEVELS = (1, 2, 4, 8, 16, 32, 48, 64, 96, 128, 96, 64, 48, 32, 16, 8, 4, 2, 1)
WARM_PART = 0.25
"""Of each step, which is not counted: the requests of the step before are still running."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One request: when it was sent, began to be answered and ended, seconds since the ramp began; whose it was."""

    sent_s: float
    first_token_s: float
    ended_s: float
    num_tokens: int
    group: str

    def tokens_in(self, begin_s: float, end_s: float) -> float:
        """Return its tokens of a time, as if they were made evenly."""
        overlap_s = min(self.ended_s, end_s) - max(self.first_token_s, begin_s)
        length_s = max(self.ended_s - self.first_token_s, 1e-9)
        return self.num_tokens * max(0.0, overlap_s) / length_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What was seen at one level.

    Attributes:
        begin_s, end_s: the time that is counted.
        few_share: requests that the group for few was given, of all.
    """

    level: int
    begin_s: float
    end_s: float
    tokens_per_s: float
    ttft_p50_ms: float
    ttft_p99_ms: float
    itl_p50_ms: float
    few_share: float


def wanted(at_s: float, level_s: float) -> int:
    """Return how many clients there are at a time of the ramp; none after it."""
    index = int(at_s / level_s)
    return LEVELS[index] if index < len(LEVELS) else 0


def steps(requests: Sequence[Seen], level_s: float, few: str) -> list[Step]:
    """Return what was seen at each level.

    Raises:
        SystemExit: a level was too short for a request.
    """
    found = []
    for index, level in enumerate(LEVELS):
        begin_s, end_s = (index + WARM_PART) * level_s, (index + 1) * level_s
        sent = [each for each in requests if begin_s <= each.sent_s < end_s]
        if not sent:
            message = f"no request was sent in {level_s:g} s with {level} clients: take longer"
            raise SystemExit(message)
        ttft_ms = np.array([each.first_token_s - each.sent_s for each in sent]) * 1000
        itl_ms = [1000 * (each.ended_s - each.first_token_s) / (each.num_tokens - 1) for each in sent]
        p50, p99 = np.percentile(ttft_ms, [50, 99])
        found.append(
            Step(
                level=level,
                begin_s=begin_s,
                end_s=end_s,
                tokens_per_s=sum(each.tokens_in(begin_s, end_s) for each in requests) / (end_s - begin_s),
                ttft_p50_ms=float(p50),
                ttft_p99_ms=float(p99),
                itl_p50_ms=float(np.median(itl_ms)),
                few_share=sum(each.group == few for each in sent) / len(sent),
            )
        )
    return found


def table(sides: Sequence[tuple[str, Sequence[Step]]]) -> list[str]:
    """Return lines of a table; the first side is the one that chooses between the groups of the others."""
    names = [name for name, _ in sides]
    lines = [
        "| at once | to the group for few | "
        + " | ".join(f"tok/s {name}" for name in names)
        + " | "
        + " | ".join(f"TTFT p50 / p99 ms {name}" for name in names)
        + " | "
        + " | ".join(f"ms/token {name}" for name in names)
        + " |",
        "|---" * (2 + 3 * len(names)) + "|",
    ]
    for row in zip(*(steps for _, steps in sides), strict=True):
        cells = [f"{row[0].level}", f"{row[0].few_share:.0%}"]
        cells += [f"{step.tokens_per_s:,.0f}" for step in row]
        cells += [f"{step.ttft_p50_ms:.0f} / {step.ttft_p99_ms:.0f}" for step in row]
        cells += [f"{step.itl_p50_ms:.1f}" for step in row]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def plot(title: str, sides: Sequence[tuple[str, Sequence[Step]]], few: str) -> str:
    """Return an SVG file of what `table` says."""
    balanced = sides[0][1]
    middles = [(step.begin_s + step.end_s) / 2 for step in balanced]

    def lines(name: str) -> list[Line]:
        values = [(side, [float(getattr(step, name)) for step in steps]) for side, steps in sides]
        return [Line(name=side, points=list(zip(middles, each, strict=True))) for side, each in values]

    load = [float(step.level) for step in balanced]
    to_few = [step.level * step.few_share for step in balanced]
    panels = [
        Panel(
            title="requests at once",
            lines=[
                Line(name="all", points=list(zip(middles, load, strict=True))),
                Line(name=f"to {few}, when balanced", points=list(zip(middles, to_few, strict=True))),
            ],
        ),
        Panel(title="tokens/s", lines=lines("tokens_per_s")),
        Panel(title="time to first token, p50, ms", lines=lines("ttft_p50_ms")),
        Panel(title="ms a token of one stream, p50", lines=lines("itl_p50_ms")),
    ]
    return svg(title, panels, "seconds")

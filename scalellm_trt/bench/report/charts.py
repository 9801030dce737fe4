"""Figures in, pictures out: lines with bands, cumulative shares, the timeline of tokens, bars."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from scalellm_trt.bench.report import axis, svg

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scalellm_trt.bench.records import RequestRecord
    from scalellm_trt.bench.report.axis import Axis

# As wide as a phone: wider screens put several beside each other, so that letters keep their size.
WIDTH, HEIGHT = 360.0, 240.0
LEFT, RIGHT, TOP, BOTTOM = 48.0, 12.0, 24.0, 38.0
ROW = 7.0  # height of a request in a timeline
BAR = 30.0
MAX_TIMELINE_ROWS = 48


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A place, the ends of its interval upwards, and what it says when it is pointed at."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None
    told: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One line; equal `colour` numbers are equal colours in all charts. Without dots for lines of many points."""

    name: str
    colour: int
    points: tuple[Point, ...]
    has_dots: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One bar; a hatched one is an estimate."""

    name: str
    value: float
    shown: str
    colour: int
    is_estimate: bool


def lines(
    series: Sequence[Series],
    *,
    label: str,
    x_title: str,
    y_title: str,
    x_ticks: Sequence[float] | None = None,
    is_log_x: bool = False,
    is_log_y: bool = False,
) -> str:
    """Return lines over each other, a band where points have intervals.

    Args:
        series: with at least one point in one of them.
        label: for those who cannot see it.
        x_title: what runs to the right, with its unit.
        y_title: what runs upwards, with its unit.
        x_ticks: the only values that x takes, where these are few.
        is_log_x: magnitudes to the right.
        is_log_y: magnitudes upwards.
    """
    points = [point for each in series for point in each.points]
    xs, ys = [point.x for point in points], [y for point in points for y in (point.y, point.low, point.high) if y]
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    x = axis.logarithmic(xs, LEFT, right, x_ticks) if is_log_x else axis.linear(xs, LEFT, right)
    y = axis.logarithmic(ys, bottom, TOP) if is_log_y else axis.linear(ys, bottom, TOP)
    parts = _frame(x, y, x_title, y_title)
    for each in series:
        parts.append(_band(each, x, y))
    for each in series:
        of = svg.colour(each.colour)
        placed = [(x.place(point.x), y.place(point.y)) for point in each.points]
        parts.append(svg.path(placed, f"line {of}"))
        if each.has_dots:
            parts += [
                svg.dot(*place, f"dot {of}", point.told) for place, point in zip(placed, each.points, strict=True)
            ]
    return svg.picture(WIDTH, HEIGHT, label, parts)


def cumulative(samples: Sequence[tuple[str, int, Sequence[float]]], *, label: str, x_title: str) -> str:
    """Return, for each (name, colour, values), the share of values up to each value; the best line is the leftmost."""
    series = []
    for name, colour, values in samples:
        ordered = sorted(values)
        steps = [
            Point(x=value, y=share)
            for place, value in enumerate(ordered)
            for share in (place / len(ordered), (place + 1) / len(ordered))
        ]
        series.append(Series(name=name, colour=colour, points=tuple(_fewer(steps)), has_dots=False))
    values = [point.x for each in series for point in each.points]
    is_log = min(values, default=0) > 0 and max(values) > 30 * min(values)
    return lines(series, label=label, x_title=x_title, y_title="share of samples", is_log_x=is_log)


def timeline(records: Sequence[RequestRecord], colour: int, *, label: str, origin_s: float) -> str:
    """Return a row for each request: the wait for its first token, then a stroke for each chunk.

    Args:
        records: the first `MAX_TIMELINE_ROWS` that were due are drawn.
        colour: of the target.
        label: for those who cannot see it.
        origin_s: time that counts as 0.
    """
    drawn = sorted(records, key=lambda record: (record.scheduled_s, record.index))[:MAX_TIMELINE_ROWS]
    height = TOP + ROW * len(drawn) + BOTTOM
    x = axis.linear([record.end_s - origin_s for record in drawn], 12, WIDTH - RIGHT)
    parts = [svg.line(x.place(tick), TOP, x.place(tick), height - BOTTOM, "grid") for tick in x.ticks]
    parts += [svg.text(x.place(tick), height - BOTTOM + 14, _tick(tick), "tick", "middle") for tick in x.ticks]
    parts.append(svg.text(WIDTH / 2, height - 6, "seconds; a row a request", "label", "middle"))
    of = svg.colour(colour)
    for place, record in enumerate(drawn):
        top = TOP + ROW * place
        first_s = record.chunk_s[0] if record.chunk_s else record.end_s
        begin, first = x.place(record.scheduled_s - origin_s), x.place(first_s - origin_s)
        kind = "wait" if record.is_good else "wait failed"
        parts.append(svg.bar(begin, top + 2, first - begin, ROW - 4, kind, _told(record)))
        marks = [(x.place(at - origin_s), top + 0.5, top + ROW - 0.5) for at in record.chunk_s]
        parts.append(svg.strokes(marks, f"mark {of}"))
    return svg.picture(WIDTH, height, label, parts)


def bars(shown: Sequence[Bar], *, label: str, title: str, style: str = "") -> str:
    """Return a bar for each value, from the top down; a name stands above its bar.

    Args:
        shown: in the order of drawing.
        label: for those who cannot see it.
        title: what a bar's length means, with its unit.
        style: a stylesheet of its own, for a file that stands alone.
    """
    height = 10 + BAR * len(shown) + 22
    x = axis.linear([each.value for each in shown], 12, WIDTH - 80)
    parts = []
    for place, each in enumerate(shown):
        top = 10 + BAR * place
        of = f"bar {svg.colour(each.colour)}{' estimate' if each.is_estimate else ''}"
        parts.append(svg.text(12, top + 9, each.name, "label"))
        parts.append(svg.bar(12, top + 13, x.place(each.value) - 12, 11, of, f"{each.name}: {each.shown}"))
        parts.append(svg.text(x.place(each.value) + 5, top + 22, each.shown, "tick"))
    parts.append(svg.text(12, height - 6, title, "label"))
    return svg.picture(WIDTH, height, label, parts, style)


def _frame(x: Axis, y: Axis, x_title: str, y_title: str) -> list[str]:
    parts = []
    for tick in y.ticks:
        parts.append(svg.line(x.begin, y.place(tick), x.end, y.place(tick), "grid"))
        parts.append(svg.text(x.begin - 5, y.place(tick) + 3.5, _tick(tick), "tick", "end"))
    for tick in x.ticks:
        parts.append(svg.line(x.place(tick), y.begin, x.place(tick), y.begin + 4, "grid"))
        parts.append(svg.text(x.place(tick), y.begin + 15, _tick(tick), "tick", "middle"))
    parts.append(svg.text((x.begin + x.end) / 2, HEIGHT - 5, x_title, "label", "middle"))
    parts.append(svg.text(4, 12, y_title, "label"))
    return parts


def _band(series: Series, x: Axis, y: Axis) -> str:
    known = [point for point in series.points if point.low is not None and point.high is not None]
    upper = [(x.place(point.x), y.place(point.high or 0.0)) for point in known]
    lower = [(x.place(point.x), y.place(point.low or 0.0)) for point in known]
    return svg.area(upper, lower, f"band {svg.colour(series.colour)}")


def _fewer(points: list[Point], limit: int = 400) -> list[Point]:
    """Keep so many that the eye sees no difference."""
    if len(points) <= limit:
        return points
    step = len(points) / limit
    return [*(points[int(place * step)] for place in range(limit)), points[-1]]


def _tick(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:g}"


def _told(record: RequestRecord) -> str:
    what = record.error or ("given up" if record.was_cancelled else f"{record.osl} tokens")
    return f"{record.request_id}: {record.isl} tokens in, {what}, {record.end_s - record.scheduled_s:.2f} s"

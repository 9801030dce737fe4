"""Figures of a report in, its charts with their legends out; each target has one colour in all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from scalellm_trt.bench import metrics
from scalellm_trt.bench.report import charts
from scalellm_trt.bench.run import records_of
from scalellm_trt.bench.tables import figure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from scalellm_trt.bench.metrics import Metric
    from scalellm_trt.bench.records import RequestRecord
    from scalellm_trt.bench.report.content import Content
    from scalellm_trt.bench.statistics import Interval
    from scalellm_trt.bench.summary import Summary
    from scalellm_trt.economics.standing import Standing

LONGEST_NAME = 54  # letters that stand beside each other in a chart


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A picture, what it shows, and which colours are whose: (name, number of the colour)."""

    title: str
    svg: str
    legend: tuple[tuple[str, int], ...]
    note: str


def draw(content: Content) -> tuple[Chart, ...]:
    """Return every chart that has something to show."""
    found: list[Chart] = []
    many = len(content.run.workloads) > 1
    for workload, note in enumerate(content.run.workloads):
        rows = [each for each in content.summaries if each.workload == workload]
        suffix = f", {note.name}" if many else ""
        for make in (_against_load, _curve, _shares, _timelines):
            found += make(content, rows, suffix)
    return tuple(found)


def scores(standings: Sequence[Standing], style: str = "") -> Chart:
    """Return a bar for each score; estimates are hatched."""
    ordered = sorted(standings, key=lambda each: -each.score.value)
    cards = list(dict.fromkeys(each.gpu for each in standings))
    bars = [
        charts.Bar(
            name=_bar_name(each),
            value=each.score.value,
            shown=figure(each.score.value),
            colour=cards.index(each.gpu),
            is_estimate=each.basis == "estimate",
        )
        for each in ordered
    ]
    svg = charts.bars(
        bars, label="Economic scores, higher is better", title="services / (s × USD/h), higher is better", style=style
    )
    notes = ["Pale bars are estimates."] if _any(standings) else []
    if any(each.score.tpot_limit_ms is not None and not each.score.meets_threshold for each in standings):
        notes.append("0: a limit is missed, see the table.")
    return Chart(title="Economic score", svg=svg, legend=(), note=" ".join(notes))


def _bar_name(each: Standing) -> str:
    words = f"{each.gpu}, {each.basis}: {each.source}, {each.load.partition(';')[0]}"
    return words if len(words) <= LONGEST_NAME else f"{words[:LONGEST_NAME]}…"


def _any(standings: Sequence[Standing]) -> bool:
    return any(each.basis == "estimate" for each in standings)


def _against_load(content: Content, rows: Sequence[Summary], suffix: str) -> Iterator[Chart]:
    closed = [each for each in rows if each.load.concurrency is not None]
    ticks = sorted({float(each.load.concurrency or 0) for each in closed})
    for metric in (metrics.TTFT, metrics.TPOT):
        found = _lines(content, closed, _median(metric), lambda each: float(each.load.concurrency or 0))
        if found:
            title = f"{metric.title} against concurrency{suffix}"
            svg = charts.lines(
                found,
                label=title,
                x_title="requests at once",
                y_title=f"{metric.title}, {metric.unit}, median",
                x_ticks=ticks,
                is_log_x=True,
                is_log_y=True,
            )
            yield Chart(title=title, svg=svg, legend=_legend(found), note="Band: 95% confidence interval.")
    found = _lines(
        content, closed, lambda each: each.output_token_throughput, lambda each: float(each.load.concurrency or 0)
    )
    if found:
        title = f"Throughput against concurrency{suffix}"
        svg = charts.lines(
            found, label=title, x_title="requests at once", y_title="output tokens/s", x_ticks=ticks, is_log_x=True
        )
        yield Chart(title=title, svg=svg, legend=_legend(found), note="Band: 95% confidence interval.")


def _curve(content: Content, rows: Sequence[Summary], suffix: str) -> Iterator[Chart]:
    found = _lines(content, rows, _median(metrics.E2E), lambda each: each.output_token_throughput.value)
    if found:
        title = f"Latency against throughput{suffix}"
        svg = charts.lines(
            found, label=title, x_title="output tokens/s", y_title="end-to-end latency, ms, median", is_log_y=True
        )
        yield Chart(title=title, svg=svg, legend=_legend(found), note="A point for each load: right and low is good.")


def _shares(content: Content, rows: Sequence[Summary], suffix: str) -> Iterator[Chart]:
    """Yield the cumulative shares at the highest load that all targets have results for."""
    top = _top_load(content, rows)
    for metric, gaps in ((metrics.TTFT, False), (metrics.TPOT, False), (metrics.ICL, True), (metrics.E2E, False)):
        samples = []
        for each in top:
            good = _good(content, each)
            values = [gap for record in good for gap in metrics.icl_ms(record)] if gaps else _values(good, metric)
            if values and metric.name in each.distributions:
                samples.append((content.run.targets[each.target].name, each.target, values))
        if samples:
            title = f"{metric.title} at {top[0].load.label} at once{suffix}"
            svg = charts.cumulative(samples, label=f"{title}, cumulative", x_title=f"{metric.title}, {metric.unit}")
            legend = tuple((name, colour) for name, colour, _ in samples)
            yield Chart(title=title, svg=svg, legend=legend, note="Share of samples up to a value: left is good.")


def _timelines(content: Content, rows: Sequence[Summary], suffix: str) -> Iterator[Chart]:
    for each in _top_load(content, rows):
        cell = next(cell for cell in content.run.cells if cell.index == each.cells[0])
        records = records_of(cell, content.records)
        name = content.run.targets[each.target].name
        if records:
            title = f"Timeline of tokens: {name} at {each.load.label} at once{suffix}"
            origin_s = min(record.scheduled_s for record in records)
            svg = charts.timeline(records, each.target, label=title, origin_s=origin_s)
            shown = min(len(records), charts.MAX_TIMELINE_ROWS)
            note = (
                f"First {shown} of {len(records)} requests: grey until the first token, then a stroke for each chunk."
            )
            yield Chart(title=title, svg=svg, legend=(), note=note)


def _lines(
    content: Content,
    rows: Sequence[Summary],
    y_of: Callable[[Summary], Interval | None],
    x_of: Callable[[Summary], float],
) -> list[charts.Series]:
    """Return a line for each target that has a point; what timed out or failed has none."""
    found = []
    for place, target in enumerate(content.run.targets):
        points = []
        for each in rows:
            y = y_of(each) if each.target == place and each.outcome == "measured" else None
            if y is not None:
                told = f"{target.name} at {each.load.label}: {figure(y.value)} ({figure(y.low)}–{figure(y.high)})"
                points.append(charts.Point(x=x_of(each), y=y.value, low=y.low, high=y.high, told=told))
        if points:
            found.append(charts.Series(name=target.name, colour=place, points=tuple(points)))
    return found


def _median(metric: Metric) -> Callable[[Summary], Interval | None]:
    def of(each: Summary) -> Interval | None:
        found = each.distributions.get(metric.name)
        return None if found is None else found.p50

    return of


def _top_load(content: Content, rows: Sequence[Summary]) -> list[Summary]:
    """Return the rows of the highest load that most targets came through."""
    measured = [each for each in rows if each.outcome == "measured"]
    by_load: dict[object, list[Summary]] = {}
    for each in measured:
        by_load.setdefault(each.load, []).append(each)
    most = max((len(found) for found in by_load.values()), default=0)
    return next((found for found in reversed(by_load.values()) if len(found) == most), [])


def _good(content: Content, summary: Summary) -> list[RequestRecord]:
    cells = [cell for cell in content.run.cells if cell.index in summary.cells]
    return [record for cell in cells for record in records_of(cell, content.records) if record.is_good]


def _values(records: Sequence[RequestRecord], metric: Metric) -> list[float]:
    return [value for record in records if isinstance(value := metric.of(record), int | float)]


def _legend(found: Sequence[charts.Series]) -> tuple[tuple[str, int], ...]:
    return tuple((each.name, each.colour) for each in found)

"""Summaries in, tables of text out, the same for a terminal, Markdown and HTML."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from scalellm_trt.bench import metrics

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scalellm_trt.bench.run import Run
    from scalellm_trt.bench.statistics import Interval
    from scalellm_trt.bench.summary import Summary

NOT_DEFINED = "–"


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Headings and rows of the same length; all columns from `first_number` on hold figures."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    first_number: int = 1
    note: str = ""

    def markdown(self) -> str:
        """Return it as GitHub's Markdown, heading and note included."""
        rules = ("---" if place < self.first_number else "---:" for place in range(len(self.columns)))
        lines = [self.columns, tuple(rules), *self.rows]
        body = "\n".join(f"| {' | '.join(escaped(cell) for cell in line)} |" for line in lines)
        note = f"\n\n{escaped(self.note)}" if self.note else ""
        return f"### {escaped(self.title)}\n\n{body}{note}\n"


def latency_tables(described: Run, summaries: Sequence[Summary], percent: int = 50) -> tuple[Table, ...]:
    """Return ScaleLLM's table for each workload: concurrency down, targets across, TTFT / time between tokens."""
    return tuple(
        _latency_table(described, [each for each in summaries if each.workload == workload], workload, percent)
        for workload in sorted({each.workload for each in summaries})
    )


def detail_table(described: Run, summaries: Sequence[Summary], metric: metrics.Metric) -> Table:
    """Return one metric's percentiles with their intervals, a row for each target and load."""
    percents = (50, 90, 95, 99)
    rows = []
    for each in summaries:
        found = each.distributions.get(metric.name)
        cells = [NOT_DEFINED] * len(percents) if found is None else [interval(found.percentiles[p]) for p in percents]
        rows.append((*_who(described, each), "0" if found is None else f"{found.count}", *cells))
    return Table(
        title=f"{metric.title}, {metric.unit}",
        columns=(*_who_columns(described), "samples", *(f"p{percent}" for percent in percents)),
        rows=tuple(rows),
        first_number=len(_who_columns(described)),
        note=metric.formula,
    )


def rate_table(described: Run, summaries: Sequence[Summary], slo: metrics.Slo) -> Table:
    """Return throughput, goodput and what failed, a row for each target and load."""
    columns = (*_who_columns(described), "requests/s", "output tokens/s", "input tokens/s")
    goodput = () if slo.is_empty else ("goodput/s",)
    rows = []
    for each in summaries:
        good = () if each.goodput is None else (interval(each.goodput),)
        rates = (each.request_throughput, each.output_token_throughput, each.input_token_throughput)
        counts = (f"{each.num_good} of {each.num_requests}", errors(each), f"{each.num_cancelled}")
        rows.append((*_who(described, each), *(interval(rate) for rate in rates), *good, *counts))
    return Table(
        title="Throughput",
        columns=(*columns, *goodput, "finished", "errors", "given up"),
        rows=tuple(rows),
        first_number=len(_who_columns(described)),
        note="" if slo.is_empty else f"Goodput: {slo.label}.",
    )


def interval(found: Interval) -> str:
    """Return a figure with the ends of its interval."""
    return f"{figure(found.value)} ({figure(found.low)}–{figure(found.high)})"


def figure(value: float) -> str:
    """Return a number as people read it: three places that count, all places before the point."""
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if size >= 10 else f"{value:.2f}" if size >= 1 else f"{value:.3g}"


def errors(summary: Summary) -> str:
    """Return what failed, by class."""
    return ", ".join(f"{name} {count}" for name, count in summary.errors.items()) or "0"


def _latency_table(described: Run, summaries: Sequence[Summary], workload: int, percent: int) -> Table:
    targets = sorted({each.target for each in summaries})
    loads = list(dict.fromkeys(each.load for each in summaries))
    cells = {(each.load, each.target): _latency_cell(each, percent) for each in summaries}
    rows = [(load.label, *(cells.get((load, target), "") for target in targets)) for load in loads]
    statistic = "median" if percent == 50 else f"p{percent}"
    limit = min(metrics.IN_TIME_S, described.timeout_s)
    return Table(
        title=f"TTFT / time between tokens, ms, {statistic}: {described.workloads[workload].name}",
        columns=("concurrent", *(described.targets[target].name for target in targets)),
        rows=tuple(rows),
        note=f"timeout: fewer than {metrics.IN_TIME_SHARE:.0%} of the requests finished within {limit:g} s. "
        "Time between tokens: TPOT.",
    )


def _latency_cell(summary: Summary, percent: int) -> str:
    if summary.outcome == "timeout":
        return "timeout"
    if summary.outcome == "failed":
        return f"failed: {errors(summary)}"
    if summary.outcome == "nothing":
        return "nothing finished"
    names = (metrics.TTFT.name, metrics.TPOT.name)
    found = [summary.distributions.get(name) for name in names]
    figures = [NOT_DEFINED if each is None else f"{each.percentiles[percent].value:,.1f}" for each in found]
    return " / ".join(figures) + ("" if summary.is_complete else " (partial)")


def _who_columns(described: Run) -> tuple[str, ...]:
    return ("target", "load") if len(described.workloads) == 1 else ("target", "workload", "load")


def _who(described: Run, summary: Summary) -> tuple[str, ...]:
    name, load = described.targets[summary.target].name, summary.load.label
    workload = described.workloads[summary.workload].name
    return (name, load) if len(described.workloads) == 1 else (name, workload, load)


def escaped(text: str) -> str:
    """Return text that is no Markdown and no HTML inside a line or a cell."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")

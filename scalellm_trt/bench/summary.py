"""A run and its records in, one row of figures for each target under each load out; its rounds are pooled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from scalellm_trt.bench import metrics, statistics

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from scalellm_trt.bench.metrics import Slo
    from scalellm_trt.bench.records import ErrorClass, RequestRecord
    from scalellm_trt.bench.run import Cell, Load, Run, Target
    from scalellm_trt.bench.statistics import Distribution, Interval

Outcome = Literal["measured", "timeout", "failed", "nothing"]
NUM_SLICES = 20  # of a cell's time, which the interval of a rate in an open loop resamples


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One target under one load, over all rounds.

    Attributes:
        target: index in `Run.targets`.
        workload: index in `Run.workloads`.
        cells: indexes in the order of rounds.
        duration_s: of all rounds together.
        num_requests: measured, whatever became of them.
        errors: failed requests by class.
        share_in_time: of the decided ones that came to their end within `limit_s`; None where none was decided.
        outcome: timeout, failed: fewer than 90% came to their end in time, most others by lateness or by an error.
            nothing: not one request was decided.
        distributions: by the metric's name, of good requests; a metric that is not defined here is missing.
        goodput: None where no SLO is asked for.
        is_complete: no round was interrupted.
    """

    target: int
    workload: int
    load: Load
    cells: tuple[int, ...]
    duration_s: float
    num_requests: int
    num_good: int
    num_cancelled: int
    errors: Mapping[ErrorClass, int]
    limit_s: float
    share_in_time: float | None
    outcome: Outcome
    distributions: Mapping[str, Distribution]
    request_throughput: Interval
    output_token_throughput: Interval
    input_token_throughput: Interval
    goodput: Interval | None
    is_complete: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RateParts:
    """A rate = scale * sum(amounts) / sum(seconds), in pairs which are resampled for its interval."""

    amounts: Sequence[float]
    seconds: Sequence[float]
    scale: float

    @property
    def value(self) -> float:
        """The rate; some time must have passed."""
        return self.scale * sum(self.amounts) / sum(self.seconds)


def summarize(described: Run, records: Sequence[RequestRecord], slo: Slo) -> tuple[Summary, ...]:
    """Return a row for each workload, load and target, in the order of the run; that of records does not matter."""
    by_cell: dict[int, list[RequestRecord]] = {cell.index: [] for cell in described.cells}
    for record in sorted(records, key=lambda record: (record.cell, record.index)):
        if not record.is_warmup and record.cell in by_cell:
            by_cell[record.cell].append(record)
    groups: dict[tuple[int, Load, int], list[Cell]] = {}
    for cell in sorted(described.cells, key=lambda cell: (cell.round, cell.index)):
        groups.setdefault((cell.workload, cell.load, cell.target), []).append(cell)
    ordered = sorted(groups.items(), key=lambda item: (item[0][0], _load_order(item[0][1]), item[0][2]))
    return tuple(_summary(described, cells, by_cell, slo) for _, cells in ordered)


def of_load(target: Target, records: Sequence[RequestRecord]) -> Mapping[str, Distribution]:
    """Return the distributions of good requests; without streaming there is nothing between request and answer."""
    good = [record for record in records if record.is_good]
    found: dict[str, Distribution | None] = {}
    for metric in (metrics.TTFT, metrics.TPOT, metrics.E2E, metrics.PER_USER, metrics.ISL, metrics.OSL):
        values = [value for record in good if isinstance(value := metric.of(record), int | float)]
        found[metric.name] = statistics.distribution(values)
    found[metrics.ICL.name] = statistics.clustered_distribution([metrics.icl_ms(record) for record in good])
    if not target.streams:
        for metric in (metrics.TTFT, metrics.TPOT, metrics.ICL, metrics.PER_USER):
            found[metric.name] = None
    return {name: each for name, each in found.items() if each is not None}


def _summary(described: Run, cells: Sequence[Cell], by_cell: Mapping[int, list[RequestRecord]], slo: Slo) -> Summary:
    first = cells[0]
    records = [record for cell in cells for record in by_cell[cell.index]]
    limit_s = min(metrics.IN_TIME_S, described.timeout_s)
    share = metrics.share_in_time(records, limit_s)

    def rate(amount: Callable[[RequestRecord], float]) -> Interval:
        return _rate(cells, by_cell, amount)

    return Summary(
        target=first.target,
        workload=first.workload,
        load=first.load,
        cells=tuple(cell.index for cell in cells),
        duration_s=sum(cell.end_s - cell.begin_s for cell in cells),
        num_requests=len(records),
        num_good=sum(record.is_good for record in records),
        num_cancelled=metrics.num_cancelled(records),
        errors=metrics.error_counts(records),
        limit_s=limit_s,
        share_in_time=share,
        outcome=_outcome(records, share, limit_s),
        distributions=of_load(described.targets[first.target], records),
        request_throughput=rate(lambda record: record.is_good),
        output_token_throughput=rate(lambda record: record.osl if record.is_good else 0),
        input_token_throughput=rate(lambda record: record.isl if record.is_good else 0),
        goodput=None if slo.is_empty else rate(slo.is_met_by),
        is_complete=all(cell.is_complete for cell in cells),
    )


def _rate(
    cells: Sequence[Cell], by_cell: Mapping[int, list[RequestRecord]], amount: Callable[[RequestRecord], float]
) -> Interval:
    """Return an amount a second with its interval."""
    found = rate_parts([(cell, by_cell[cell.index]) for cell in cells], amount)
    return statistics.scaled(statistics.rate(found.amounts, found.seconds), found.scale)


def rate_parts(
    measured: Sequence[tuple[Cell, Sequence[RequestRecord]]], amount: Callable[[RequestRecord], float]
) -> RateParts:
    """Return the independent parts of a rate of cells under one load.

    In a closed loop the next request waits for the last one, so by Little's law a rate is requests at once times amount
    per latency, and the parts are requests. In an open loop they come by themselves: the parts are slices of time.
    """
    whole_s = sum(cell.end_s - cell.begin_s for cell, _ in measured)
    records = [record for _, of_cell in measured for record in of_cell]
    latencies = [metrics.e2e_latency_ms(record) / 1000 for record in records]
    if measured[0][0].load.mode == "closed" and whole_s > 0 and sum(latencies) > 0:
        at_once = sum(latencies) / whole_s
        return RateParts(amounts=[amount(record) for record in records], seconds=latencies, scale=at_once)
    parts = [part for cell, of_cell in measured for part in slices(cell, of_cell, amount)]
    return RateParts(amounts=[amount for amount, _ in parts], seconds=[seconds for _, seconds in parts], scale=1.0)


def _outcome(records: Sequence[RequestRecord], share: float | None, limit_s: float) -> Outcome:
    if share is None:
        return "nothing"
    if share >= metrics.IN_TIME_SHARE:
        return "measured"
    late = sum(record.error == "timeout" or metrics.e2e_latency_ms(record) > 1000 * limit_s for record in records)
    failed = sum(record.error not in (None, "timeout") and not record.was_cancelled for record in records)
    return "timeout" if late >= failed else "failed"


def slices(
    cell: Cell, records: Sequence[RequestRecord], amount: Callable[[RequestRecord], float]
) -> list[tuple[float, float]]:
    """Return a cell's time in equal slices: (amount of the requests that ended in it, seconds)."""
    seconds = (cell.end_s - cell.begin_s) / NUM_SLICES
    amounts = [0.0] * NUM_SLICES
    for record in records:
        place = int((record.end_s - cell.begin_s) / seconds) if seconds > 0 else 0
        amounts[min(max(place, 0), NUM_SLICES - 1)] += amount(record)
    return [(each, seconds) for each in amounts]


def _load_order(load: Load) -> tuple[str, float]:
    return ("" if load.mode == "closed" else load.mode, load.concurrency or load.rate_per_s or 0.0)

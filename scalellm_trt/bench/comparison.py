"""Two sides of measured requests in; how many times larger a metric is on one of them, and whether that is sure, out.

A ratio is the median over rounds of the ratio of the round's figures: of a latency their medians, of throughput output
tokens a second. Its 95% interval is a bootstrap of two steps: rounds are drawn with replacement, and in each round
requests are; so noise between rounds widens it as much as noise within them. Rounds of one run are pairs, measured
close to each other; those of two runs are drawn independently.

What it does not know: requests are drawn as if each were by itself; those that one server works off together are not.
So one round promises too much, and only several show how they differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from scalellm_trt.bench import metrics, statistics, summary
from scalellm_trt.bench.run import records_of
from scalellm_trt.errors import Problem, RecipeError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from scalellm_trt.bench.metrics import Metric
    from scalellm_trt.bench.records import RequestRecord
    from scalellm_trt.bench.run import Cell, Load, Run
    from scalellm_trt.bench.statistics import Interval, Samples

Verdict = Literal["better", "worse", "no difference"]
LATENCIES = (metrics.TTFT, metrics.TPOT, metrics.E2E)


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One cell with its measured requests, whatever became of them."""

    cell: Cell
    records: tuple[RequestRecord, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """A target's measured requests under one load, in the order of rounds."""

    target: str
    workload: str
    load: Load
    rounds: tuple[Round, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """How `target` compares with `reference` in a metric.

    Attributes:
        interval: of the ratio target / reference; None where one side has no samples.
        verdict: "no difference" unless the whole interval lies on one side of 1 by more than the threshold.
    """

    target: str
    reference: str
    workload: str
    load: Load
    metric: Metric
    interval: Interval | None
    num_rounds: int
    verdict: Verdict

    @property
    def better(self) -> str | None:
        """Who is better for certain; None where nobody is."""
        return {"better": self.target, "worse": self.reference, "no difference": None}[self.verdict]


def sides(run: Run, all_records: Sequence[RequestRecord]) -> list[Side]:
    """Return what was measured, a side for each workload, load and target."""
    found: dict[tuple[int, Load, int], list[Round]] = {}
    for cell in sorted(run.cells, key=lambda cell: cell.round):
        in_order = sorted(records_of(cell, all_records), key=lambda record: record.index)
        measured = Round(cell=cell, records=tuple(in_order))
        found.setdefault((cell.workload, cell.load, cell.target), []).append(measured)
    return [
        Side(target=run.targets[target].name, workload=run.workloads[workload].name, load=load, rounds=tuple(rounds))
        for (workload, load, target), rounds in found.items()
    ]


def within(run: Run, all_records: Sequence[RequestRecord], threshold: float = 0.0) -> list[Ratio]:
    """Compare every target with the first one."""
    found = sides(run, all_records)
    first = {(side.workload, side.load): side for side in found if side.target == run.targets[0].name}
    pairs = [(side, first[side.workload, side.load]) for side in found if (side.workload, side.load) in first]
    return [
        ratio
        for side, reference in pairs
        if side is not reference
        for ratio in _ratios(side, reference, threshold, is_paired=True)
    ]


def against(
    now: tuple[Run, Sequence[RequestRecord]], baseline: tuple[Run, Sequence[RequestRecord]], threshold: float = 0.0
) -> list[Ratio]:
    """Compare each target with the one of the same name in a run before.

    Raises:
        RecipeError: the other run has asked other work, or nothing that was measured now.
    """
    digests = [{note.name: note.digest for note in run.workloads} for run, _ in (now, baseline)]
    for name in digests[0].keys() & digests[1].keys():
        if digests[0][name] != digests[1][name]:
            message = f"the baseline's {name} are other prompts: another seed, tokenizer or version of the texts"
            raise RecipeError([Problem(key="--baseline", message=message, hint="Measure the baseline again.")])
    before = {(side.target, side.workload, side.load): side for side in sides(*baseline)}
    pairs = [
        (side, before[side.target, side.workload, side.load])
        for side in sides(*now)
        if (side.target, side.workload, side.load) in before
    ]
    if not pairs:
        message = "the baseline has none of these targets under these workloads and loads"
        hint = f"It has: {', '.join(sorted({f'{name} at {load.label}' for name, _, load in before}))}."
        raise RecipeError([Problem(key="--baseline", message=message, hint=hint)])
    return [ratio for side, reference in pairs for ratio in _ratios(side, reference, threshold, is_paired=False)]


def _ratios(side: Side, reference: Side, threshold: float, *, is_paired: bool) -> list[Ratio]:
    found: list[tuple[Metric, Interval | None]] = []
    for metric in LATENCIES:
        over, under = (list(_samples(each, metric)) for each in (side, reference))
        found.append((metric, ratio_of_rounds(over, under, is_paired=is_paired)))
    found.append((metrics.OUTPUT_THROUGHPUT, ratio_of_rates(side.rounds, reference.rounds, is_paired=is_paired)))
    return [
        Ratio(
            target=side.target,
            reference=reference.target if is_paired else "baseline",
            workload=side.workload,
            load=side.load,
            metric=metric,
            interval=interval,
            num_rounds=min(len(side.rounds), len(reference.rounds)),
            verdict=verdict(interval, threshold, is_more_better=metric.is_more_better),
        )
        for metric, interval in found
    ]


def verdict(interval: Interval | None, threshold: float, *, is_more_better: bool = False) -> Verdict:
    """Say what a ratio means; `threshold` 0.05 lets factors up to 1.05, and down to 1 / 1.05, pass."""
    if interval is None:
        return "no difference"
    if interval.low > 1 + threshold:
        return "better" if is_more_better else "worse"
    if interval.high < 1 / (1 + threshold):
        return "worse" if is_more_better else "better"
    return "no difference"


def ratio_of_rounds(over: Sequence[Samples], under: Sequence[Samples], *, is_paired: bool) -> Interval | None:
    """Return the ratio of medians with its interval; rounds without samples on a side are left out.

    Args:
        over: ascending samples of each round.
        under: the same of the other side; of the same rounds where `is_paired`.
        is_paired: draw the same rounds on both sides.
    """
    if is_paired:
        pairs = [(a, b) for a, b in zip(over, under, strict=False) if len(a) and len(b)]
        over, under = [a for a, _ in pairs], [b for _, b in pairs]
    over, under = [each for each in over if len(each)], [each for each in under if len(each)]
    if not over or not under:
        return None
    generator = np.random.default_rng(statistics.SEED)
    figures = [
        _Figures(
            values=np.asarray([np.median(each) for each in of_side]),
            drawn=np.stack([statistics.resampled_percentile(each, 50, generator) for each in of_side]),
        )
        for of_side in (over, under)
    ]
    return _ratio_of(figures[0], figures[1], generator, is_paired=is_paired)


def ratio_of_rates(over: Sequence[Round], under: Sequence[Round], *, is_paired: bool) -> Interval | None:
    """Return the ratio of output token throughputs with its interval.

    A round's throughput is that of its whole cell, also of the time at its end when fewer requests run, and of requests
    that failed, which make no tokens. In a closed loop a resample of it is `at_once * sum of osl / sum of e2e_latency`
    over requests drawn with replacement, where at_once is what the cell had on average (Little's law); in an open loop
    `sum of osl / sum of seconds` over slices of its time. Rounds in which the reference made nothing have no ratio.

    The share of that end depends on how many requests a cell has: sides with as many are comparable.

    Formula: ratio = median over rounds of (target's sum of osl / s) / (reference's sum of osl / s)
    """
    one, other = ([_tokens(each) for each in of_side] for of_side in (over, under))
    if is_paired:
        pairs = [(a, b) for a, b in zip(one, other, strict=False) if a is not None and b is not None and b.value > 0]
        made, reference = [a for a, _ in pairs], [b for _, b in pairs]
    else:
        made, reference = ([each for each in of_side if each is not None] for of_side in (one, other))
    if not made or not reference or np.median([each.value for each in reference]) <= 0:
        return None
    generator = np.random.default_rng(statistics.SEED)
    figures = [
        _Figures(
            values=np.asarray([each.value for each in of_side]),
            drawn=np.stack(
                [each.scale * statistics.resampled_rate(each.amounts, each.seconds, generator) for each in of_side]
            ),
        )
        for of_side in (made, reference)
    ]
    return _ratio_of(figures[0], figures[1], generator, is_paired=is_paired)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Figures:
    """A side's figure of each round, (rounds,), and resamples of it, (rounds, resamples)."""

    values: Samples
    drawn: Samples


def _ratio_of(over: _Figures, under: _Figures, generator: np.random.Generator, *, is_paired: bool) -> Interval:
    if is_paired:
        ratios = _drawn_median(over.drawn / _above_zero(under.drawn), generator)
        value = float(np.median(over.values / under.values))
    else:
        ratios = _drawn_median(over.drawn, generator) / _above_zero(_drawn_median(under.drawn, generator))
        value = float(np.median(over.values) / np.median(under.values))
    low, high = np.percentile(ratios, [2.5, 97.5])
    return statistics.Interval(value=value, low=min(float(low), value), high=max(float(high), value))


def _above_zero(divisors: Samples) -> Samples:
    """Return resamples to divide by: one that happens to hold no tokens counts as the least of the others."""
    return np.maximum(divisors, divisors[divisors > 0].min())


def _drawn_median(of_rounds: Samples, generator: np.random.Generator) -> Samples:
    """Return for each resample the median of rounds drawn with replacement: (rounds, resamples) to (resamples,)."""
    num_rounds, num_resamples = of_rounds.shape
    chosen = generator.integers(0, num_rounds, (num_rounds, num_resamples))
    found: Samples = np.median(np.take_along_axis(of_rounds, chosen, axis=0), axis=0)
    return found


def _tokens(of_round: Round) -> summary.RateParts | None:
    """Return the parts of a round's output token throughput; None where no time passed."""
    found = summary.rate_parts([(of_round.cell, of_round.records)], lambda record: record.osl if record.is_good else 0)
    return found if sum(found.seconds) > 0 else None


def _samples(side: Side, metric: Metric) -> Iterator[Samples]:
    for each in side.rounds:
        good = (record for record in each.records if record.is_good)
        values = [value for record in good if isinstance(value := metric.of(record), int | float)]
        yield np.sort(np.asarray([value for value in values if value > 0], dtype=np.float64))

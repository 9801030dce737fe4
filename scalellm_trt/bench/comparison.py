"""Two sides of measured requests in; how many times larger a metric is on one of them, and whether that is sure, out.

A ratio is the median over rounds of the ratio of the round's medians. Its 95% interval is a bootstrap of two steps:
rounds are drawn with replacement, and in each round requests are; so noise between rounds widens it as much as noise
within them. Rounds of one run are pairs, measured close to each other; those of two runs are drawn independently.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from scalellm_trt.bench import metrics, statistics
from scalellm_trt.bench.run import records_of
from scalellm_trt.errors import Problem, RecipeError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from scalellm_trt.bench.metrics import Metric
    from scalellm_trt.bench.records import RequestRecord
    from scalellm_trt.bench.run import Load, Run
    from scalellm_trt.bench.statistics import Interval, Samples

Verdict = Literal["better", "worse", "no difference"]
LATENCIES = (metrics.TTFT, metrics.TPOT, metrics.E2E)


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """A target's measured requests under one load: good ones by round, in the order of rounds."""

    target: str
    workload: str
    load: Load
    rounds: tuple[tuple[RequestRecord, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """How `target` compares with `reference` in a metric of which less is better.

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


def sides(run: Run, all_records: Sequence[RequestRecord]) -> list[Side]:
    """Return what was measured, a side for each workload, load and target."""
    found: dict[tuple[int, Load, int], list[tuple[RequestRecord, ...]]] = {}
    for cell in sorted(run.cells, key=lambda cell: cell.round):
        good = tuple(record for record in records_of(cell, all_records) if record.is_good)
        found.setdefault((cell.workload, cell.load, cell.target), []).append(good)
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
        _ratio(side, reference, metric, threshold, is_paired=True)
        for side, reference in pairs
        if side is not reference
        for metric in LATENCIES
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
    return [
        _ratio(side, reference, metric, threshold, is_paired=False) for side, reference in pairs for metric in LATENCIES
    ]


def _ratio(side: Side, reference: Side, metric: Metric, threshold: float, *, is_paired: bool) -> Ratio:
    over, under = (list(_samples(each, metric)) for each in (side, reference))
    interval = ratio_of_rounds(over, under, is_paired=is_paired)
    return Ratio(
        target=side.target,
        reference=reference.target if is_paired else "baseline",
        workload=side.workload,
        load=side.load,
        metric=metric,
        interval=interval,
        num_rounds=min(len(over), len(under)),
        verdict=verdict(interval, threshold),
    )


def verdict(interval: Interval | None, threshold: float) -> Verdict:
    """Say what a ratio means of which less is better; `threshold` 0.05 lets 5% pass."""
    if interval is not None and interval.low > 1 + threshold:
        return "worse"
    return "better" if interval is not None and interval.high < 1 / (1 + threshold) else "no difference"


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
    drawn_over, drawn_under = (
        np.stack([statistics.resampled_percentile(each, 50, generator) for each in of_side])
        for of_side in (over, under)
    )
    if is_paired:
        ratios = _drawn_median(drawn_over / drawn_under, generator)
        value = float(np.median([np.median(a) / np.median(b) for a, b in zip(over, under, strict=True)]))
    else:
        ratios = _drawn_median(drawn_over, generator) / _drawn_median(drawn_under, generator)
        value = float(np.median([np.median(a) for a in over]) / np.median([np.median(b) for b in under]))
    low, high = np.percentile(ratios, [2.5, 97.5])
    return statistics.Interval(value=value, low=min(float(low), value), high=max(float(high), value))


def _drawn_median(of_rounds: Samples, generator: np.random.Generator) -> Samples:
    """Return for each resample the median of rounds drawn with replacement: (rounds, resamples) to (resamples,)."""
    num_rounds, num_resamples = of_rounds.shape
    chosen = generator.integers(0, num_rounds, (num_rounds, num_resamples))
    found: Samples = np.median(np.take_along_axis(of_rounds, chosen, axis=0), axis=0)
    return found


def _samples(side: Side, metric: Metric) -> Iterator[Samples]:
    for records in side.rounds:
        values = [value for record in records if isinstance(value := metric.of(record), int | float)]
        yield np.sort(np.asarray([value for value in values if value > 0], dtype=np.float64))

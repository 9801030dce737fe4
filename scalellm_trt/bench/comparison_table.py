"""Ratios in, a table of them out, with what they mean and what they do not know: for `compare` and for reports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scalellm_trt.bench.tables import NOT_DEFINED, Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scalellm_trt.bench.comparison import Ratio

FORMULA = (
    "Ratio = median over rounds of target / reference, of the round's median latency or of its output tokens/s (tokens "
    "of finished answers / time of the measurement, its end included, when fewer requests run); against a run before, "
    "median over rounds / median over rounds"
)
LIMITS = (
    "Interval, 95%: rounds are resampled, and in each its requests (of a throughput in an open loop, slices of time). "
    "Requests are taken as independent, which those that run together are not, so a single round promises too much. "
    "Throughputs of measurements with as many requests are comparable: the end has another share in others"
)
READING = (
    "Less is better, of throughput more. A verdict is given where the whole interval lies on one side of 1 (by more "
    "than the threshold, where one is given)"
)


def table(ratios: Sequence[Ratio]) -> Table:
    """Return a row for each ratio; the verdict names who is better."""
    return Table(
        title="Comparison",
        columns=("target", "against", "workload", "load", "metric", "verdict", "rounds", "ratio (95% interval)"),
        rows=tuple(_row(each) for each in ratios),
        first_number=6,
        note=f"{FORMULA}. {LIMITS}. {READING}.",
    )


def text(ratio: Ratio) -> str:
    """Return the ratio with the ends of its interval."""
    found = ratio.interval
    return NOT_DEFINED if found is None else f"{found.value:.3f} ({found.low:.3f}–{found.high:.3f})"


def as_json(ratio: Ratio) -> dict[str, Any]:
    """Return the same for programs."""
    found = ratio.interval
    return {
        "target": ratio.target,
        "reference": ratio.reference,
        "workload": ratio.workload,
        "load": ratio.load.label,
        "metric": ratio.metric.name,
        "is_more_better": ratio.metric.is_more_better,
        "ratio": None if found is None else {"value": found.value, "low": found.low, "high": found.high},
        "num_rounds": ratio.num_rounds,
        "verdict": ratio.verdict,
        "better": ratio.better,
    }


def _row(each: Ratio) -> tuple[str, ...]:
    doubt = " (one round)" if each.num_rounds == 1 else ""
    verdict = each.verdict if each.better is None else f"{each.better} is better{doubt}"
    who = (each.target, each.reference, each.workload, each.load.label)
    return (*who, each.metric.title, verdict, f"{each.num_rounds}", text(each))

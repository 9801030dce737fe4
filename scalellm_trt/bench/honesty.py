"""Why a result may not mean what it seems to: a run, its figures and its records in, warnings with figures out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from scalellm_trt.bench import metrics, statistics
from scalellm_trt.bench.run import records_of
from scalellm_trt.bench.tables import figure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from scalellm_trt.bench.ceiling import Ceiling
    from scalellm_trt.bench.records import RequestRecord
    from scalellm_trt.bench.run import Load, Run
    from scalellm_trt.bench.summary import Summary

Kind = Literal[
    "partial", "not_streaming", "client", "failures", "noisy", "output_lengths", "token_counts", "roofline",
    "cached_prompts", "coarse_chunks", "few_samples", "roofline_not_checked",
]  # fmt: skip

# From here on a figure says more about the client than about the server.
MAX_CPU_SHARE = 0.85
MAX_LOOP_LAG_P50_MS = 2.0
MAX_LOOP_LAG_P99_MS = 20.0
MAX_SEND_DELAY_MS = 10.0
# Differences below these are the usual ones of real answers, tokenizers and machines.
MAX_LENGTH_RATIO = 1.05
MAX_COUNT_RATIO = 1.01
MAX_ROUND_RATIO = 1.10
MAX_FAILED_SHARE = 0.01
MIN_CACHED_SHARE = 0.05
MAX_TOKENS_A_CHUNK = 1.5
MIN_P99_SAMPLES = 100


# What it says, the limit, the field of `ClientHealth`, the unit.
_CLIENT_LIMITS = (
    ("the client's busiest process used", MAX_CPU_SHARE, "cpu_share", " of a core"),
    ("its event loop came late by", MAX_LOOP_LAG_P50_MS, "loop_lag_p50_ms", " ms (p50)"),
    ("its event loop came late by", MAX_LOOP_LAG_P99_MS, "loop_lag_p99_ms", " ms (p99)"),
    ("requests were sent late by", MAX_SEND_DELAY_MS, "send_delay_p99_ms", " ms (p99)"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """One reason for doubt, with its figures; a note is good to know and no reason for doubt."""

    kind: Kind
    text: str
    is_note: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """All that is looked at.

    Attributes:
        ceilings: what the hardware behind a target can do at most, by the target's index, where that is known.
    """

    run: Run
    summaries: Sequence[Summary]
    records: Sequence[RequestRecord]
    ceilings: Mapping[int, Ceiling]

    def of(self, summary: Summary) -> list[RequestRecord]:
        """Return the good records of a row."""
        cells = [self.run.cells[place] for place in range(len(self.run.cells)) if self._is_in(place, summary)]
        return [record for cell in cells for record in records_of(cell, self.records) if record.is_good]

    def _is_in(self, place: int, summary: Summary) -> bool:
        return self.run.cells[place].index in summary.cells


def examine(seen: Seen) -> tuple[Doubt, ...]:
    """Return every doubt, then every note."""
    found = [each for check in _CHECKS for each in check(seen)]
    return tuple(sorted(found, key=lambda each: each.is_note))


def _partial(seen: Seen) -> Iterator[Doubt]:
    cut = [each for each in seen.summaries if not each.is_complete]
    if cut or seen.run.is_partial:
        names = "; ".join(_who(seen.run, each) for each in cut) or "cells that were to come are missing"
        yield Doubt(kind="partial", text=f"The run was interrupted. Not complete: {names}.")


def _not_streaming(seen: Seen) -> Iterator[Doubt]:
    for target in seen.run.targets:
        if not target.streams:
            yield Doubt(
                kind="not_streaming",
                text=f"{target.name} was asked without streaming: whole answers came at once, so it has no TTFT, TPOT "
                "and inter-chunk latency, and its end-to-end latency is not comparable with what a reader waits for.",
            )


def _client(seen: Seen) -> Iterator[Doubt]:
    for what, limit, name, unit in _CLIENT_LIMITS:
        worsts = [(_worst(seen, each, name), each) for each in seen.summaries]
        over = [pair for pair in worsts if pair[0] > limit]
        if over:
            value, worst = max(over, key=lambda pair: pair[0])
            yield Doubt(
                kind="client",
                text=f"The client may be the bottleneck in {len(over)} of {len(seen.summaries)} rows: {what} "
                f"{figure(value)}{unit} with {_who(seen.run, worst)}; fit is at most {limit:g}. "
                "Latencies are too high and throughput too low there: use more processes or a machine of its own.",
            )


def _worst(seen: Seen, summary: Summary, name: str) -> float:
    return max(float(getattr(cell.client, name)) for cell in seen.run.cells if cell.index in summary.cells)


def _failures(seen: Seen) -> Iterator[Doubt]:
    for place, target in enumerate(seen.run.targets):
        rows = [each for each in seen.summaries if each.target == place]
        bad = [each for each in rows if sum(each.errors.values()) > MAX_FAILED_SHARE * each.num_requests]
        if bad:
            classes = Counter[str]()
            for each in bad:
                classes.update(each.errors)
            shown = ", ".join(f"{name} {count}" for name, count in classes.most_common())
            loads = ", ".join(each.load.label for each in bad)
            yield Doubt(
                kind="failures",
                text=f"{target.name}: {classes.total()} of {sum(each.num_requests for each in bad)} requests failed at "
                f"{loads} ({shown}). Latencies are of those that finished, which may be the fast ones.",
            )


def _noisy(seen: Seen) -> Iterator[Doubt]:
    """Find rounds whose medians differ by more than samples of one machine at rest would."""
    for each in seen.summaries:
        streams = seen.run.targets[each.target].streams
        for metric in (metrics.TTFT, metrics.TPOT) if streams else (metrics.E2E,):
            found = [_of_round(seen, index, metric) for index in each.cells]
            medians = [one.p50 for one in found if one is not None]
            highest_low = max((median.low for median in medians), default=0.0)
            lowest_high = min((median.high for median in medians), default=0.0)
            values = [median.value for median in medians]
            if highest_low > lowest_high and min(values) > 0 and max(values) / min(values) > MAX_ROUND_RATIO:
                rounds = ", ".join(figure(value) for value in values)
                yield Doubt(
                    kind="noisy",
                    text=f"{_who(seen.run, each)}: rounds disagree: median {metric.title} {rounds} {metric.unit}. The "
                    "machine was not at rest, so differences of this size mean nothing, whatever an interval says.",
                )
                break


def _of_round(seen: Seen, index: int, metric: metrics.Metric) -> statistics.Distribution | None:
    cell = next(cell for cell in seen.run.cells if cell.index == index)
    values = [metric.of(record) for record in records_of(cell, seen.records) if record.is_good]
    return statistics.distribution([value for value in values if isinstance(value, float)])


def _output_lengths(seen: Seen) -> Iterator[Doubt]:
    groups: dict[tuple[int, Load], dict[int, float]] = {}
    for each in seen.summaries:
        if metrics.OSL.name in each.distributions:
            means = groups.setdefault((each.workload, each.load), {})
            means[each.target] = each.distributions[metrics.OSL.name].mean
    odd = {key: means for key, means in groups.items() if _spread(means) > MAX_LENGTH_RATIO}
    if odd:
        (_, load), means = max(odd.items(), key=lambda item: _spread(item[1]))
        names = ", ".join(f"{seen.run.targets[target].name} {figure(mean)}" for target, mean in means.items())
        yield Doubt(
            kind="output_lengths",
            text=f"Answers of the targets differ in length at {len(odd)} of {len(groups)} loads, most at {load.label}: "
            f"mean {names} tokens. End-to-end latency and requests/s then compare different work; compare TPOT and "
            "output tokens/s, or fix the length.",
        )


def _spread(means: Mapping[int, float]) -> float:
    return max(means.values()) / max(min(means.values()), 1e-9)


def _token_counts(seen: Seen) -> Iterator[Doubt]:
    for place, target in enumerate(seen.run.targets):
        good = [r for each in seen.summaries if each.target == place for r in seen.of(each)]
        answers = [(each.osl, each.server_osl) for each in good if each.server_osl is not None]
        prompts = [(each.isl, each.server_isl) for each in good if each.server_isl is not None]
        for name, both in (("answers", answers), ("prompts", prompts)):
            ours, theirs = sum(pair[0] for pair in both), sum(pair[1] for pair in both)
            if both and max(ours, theirs) > MAX_COUNT_RATIO * min(ours, theirs):
                odd = sum(pair[0] != pair[1] for pair in both)
                yield Doubt(
                    kind="token_counts",
                    text=f"{target.name}: client and server count different tokens in {name}: {ours:,} and {theirs:,}, "
                    f"different in {odd} of {len(both)} requests. Figures here are by the client's tokenizer: is it "
                    "the served one, with its chat template?",
                )


def _roofline(seen: Seen) -> Iterator[Doubt]:
    for each in seen.summaries:
        ceiling = seen.ceilings.get(each.target)
        if ceiling is None or each.outcome == "nothing":
            continue
        for what, measured, limit, unit, excuse in _beaten(each, ceiling):
            yield Doubt(
                kind="roofline",
                text=f"{_who(seen.run, each)}: {what} {figure(measured)} {unit} beats the roofline of {ceiling.name}, "
                f"{figure(limit)} {unit}. {excuse}",
            )


def _beaten(summary: Summary, ceiling: Ceiling) -> Iterator[tuple[str, float, float, str, str]]:
    prompt = summary.distributions.get(metrics.ISL.name)
    if prompt is None:
        return
    between, first = (summary.distributions.get(metric.name) for metric in (metrics.TPOT, metrics.TTFT))
    lower = ceiling.min_tpot_ms(prompt.p50.value)
    if between is not None and between.p50.value < lower:
        excuse = "Without speculative decoding no server does that: is it another model, card or number format?"
        yield "median TPOT", between.p50.value, lower, "ms", excuse
    lower = ceiling.min_ttft_ms(prompt.p50.value)
    if first is not None and first.p50.value < lower:
        excuse = "The prompt was not read: it was in the KV cache, or it is not as long as thought."
        yield "median TTFT", first.p50.value, lower, "ms", excuse
    tokens = summary.input_token_throughput.value + summary.output_token_throughput.value
    if tokens > ceiling.max_tokens_per_s:
        excuse = "Prompts came from the KV cache, or tokens are counted twice."
        yield "input and output", tokens, ceiling.max_tokens_per_s, "tokens/s", excuse


def _cached_prompts(seen: Seen) -> Iterator[Doubt]:
    for place, target in enumerate(seen.run.targets):
        good = [r for each in seen.summaries if each.target == place for r in seen.of(each)]
        cached, total = sum(record.cached_tokens or 0 for record in good), sum(record.isl for record in good)
        if total and cached / total >= MIN_CACHED_SHARE:
            yield Doubt(
                kind="cached_prompts",
                is_note=True,
                text=f"{target.name}: {cached / total:.0%} of the prompt tokens came from its KV cache, so TTFT is not "
                "that of new prompts.",
            )


def _coarse_chunks(seen: Seen) -> Iterator[Doubt]:
    for place, target in enumerate(seen.run.targets):
        good = [r for each in seen.summaries if each.target == place for r in seen.of(each) if r.chunk_tokens]
        chunks = sum(len(record.chunk_tokens) for record in good)
        size = sum(sum(record.chunk_tokens) for record in good) / chunks if chunks else 0.0
        if target.streams and size > MAX_TOKENS_A_CHUNK:
            first = sum(record.chunk_tokens[0] for record in good) / len(good)
            yield Doubt(
                kind="coarse_chunks",
                is_note=True,
                text=f"{target.name} sends {figure(size)} tokens a chunk ({figure(first)} in the first): inter-chunk "
                "latency is of chunks, not of tokens, and TTFT is that of all tokens in the first.",
            )


def _few_samples(seen: Seen) -> Iterator[Doubt]:
    few = [each for each in seen.summaries if 0 < each.num_good < MIN_P99_SAMPLES]
    if few:
        least = min(few, key=lambda each: each.num_good)
        yield Doubt(
            kind="few_samples",
            is_note=True,
            text=f"{len(few)} of {len(seen.summaries)} rows have fewer than {MIN_P99_SAMPLES} finished requests (least "
            f"{least.num_good}, {_who(seen.run, least)}): their p99 is little more than the slowest request.",
        )


def _roofline_not_checked(seen: Seen) -> Iterator[Doubt]:
    missing = [target.name for place, target in enumerate(seen.run.targets) if place not in seen.ceilings]
    if missing:
        yield Doubt(
            kind="roofline_not_checked",
            is_note=True,
            text=f"Not compared with a roofline: {', '.join(missing)}. Name its recipe (--recipe), and for a processor "
            "its memory bandwidth (--memory-bandwidth).",
        )


def _who(described: Run, summary: Summary) -> str:
    return f"{described.targets[summary.target].name} at {summary.load.label}"


_CHECKS: tuple[Callable[[Seen], Iterator[Doubt]], ...] = (
    _partial,
    _not_streaming,
    _client,
    _failures,
    _roofline,
    _noisy,
    _output_lengths,
    _token_counts,
    _cached_prompts,
    _coarse_chunks,
    _few_samples,
    _roofline_not_checked,
)

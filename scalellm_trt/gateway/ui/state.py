"""What `/ui/state.json` says: reports of all workers in, one `State` out. The field names are the JSON's keys."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import zip_longest
from typing import TYPE_CHECKING, Literal, TypeVar

from scalellm_trt.gateway.ui.latency import percentile_s
from scalellm_trt.gateway.ui.window import Counts, LastError, Report, Series

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

ServerCondition = Literal["ready", "not ready", "draining"]
Number = TypeVar("Number", int, float)


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One tritonserver.

    Attributes:
        url: `host:port` of its gRPC.
        running: requests at it now.
        waiting: requests that wait here for their turn at it.
        connections: gRPC connections that stand.
        last_error: the most recent request that it failed; None where it never did.
    """

    url: str
    state: ServerCondition
    running: int
    waiting: int
    connections: int
    last_error: LastError | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One model that is offered.

    Attributes:
        can_chat: it has a chat template.
        max_seq_len: most tokens of a prompt and its answer.
    """

    name: str
    can_chat: bool
    max_seq_len: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """Generations of all workers together, and how many there may be."""

    running: int
    waiting: int
    max_running: int
    max_waiting: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Percentiles:
    """Latencies of the last minute in milliseconds; None where there were none.

    Attributes:
        count: how many went in.
    """

    count: int
    p50: float | None
    p90: float | None
    p99: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Minute:
    """The last minute, or less where the gateway is younger.

    Attributes:
        seconds: what it covers.
        ttft_ms: from a request to the first text of its stream.
        itl_ms: from token to token of a stream: tokens that came together share the time since the ones before.
        cached_share: 0 to 1, of the prompts' tokens the share that the engine had in its KV cache; None where no engine
            said anything of it.
        errors: requests that failed, by HTTP status.
        cancelled: requests whose client left.
    """

    seconds: float
    requests_per_s: float
    prompt_tokens_per_s: float
    generation_tokens_per_s: float
    ttft_ms: Percentiles
    itl_ms: Percentiles
    cached_share: float | None
    errors: dict[str, int]
    cancelled: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """What the metrics say of one tenant since the gateway started; `values` by name of the metric."""

    name: str
    values: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """A gateway now.

    Attributes:
        schema: version of this shape; keys may be added without a new one.
        time_s: the gateway's clock, in seconds since 1970.
        age_s: how long its oldest worker has run.
        workers: how many report.
        needs_key: whether clients need an API key.
        total: since each worker started.
    """

    schema: int = 1
    version: str
    time_s: float
    age_s: float
    workers: int
    needs_key: bool
    models: Sequence[Model]
    servers: Sequence[Server]
    queue: Queue
    minute: Minute
    total: Counts
    series: Series
    tenants: Sequence[Tenant] = field(default=())


def merged(reports: Sequence[Report]) -> Report:
    """Return the report of all workers together."""
    last_errors = [report.last_error for report in reports if report.last_error is not None]
    return Report(
        age_s=max(report.age_s for report in reports),
        window_s=max(report.window_s for report in reports),
        running=sum(report.running for report in reports),
        waiting=sum(report.waiting for report in reports),
        connections=sum(report.connections for report in reports),
        total=_sum_counts([report.total for report in reports]),
        minute=_sum_counts([report.minute for report in reports]),
        ttft=_sum_maps(report.ttft for report in reports),
        itl=_sum_maps(report.itl for report in reports),
        series=Series(
            requests=_sum_series([report.series.requests for report in reports]),
            generation_tokens=_sum_series([report.series.generation_tokens for report in reports]),
            running=_sum_series([report.series.running for report in reports]),
            waiting=_sum_series([report.series.waiting for report in reports]),
        ),
        last_error=max(last_errors, key=lambda error: error.time_s, default=None),
    )


def minute(report: Report) -> Minute:
    """Return rates and percentiles of a report."""
    counts = report.minute
    # In the first second a single request would be called a thousand a second.
    seconds = max(report.window_s, 1.0)
    told = counts.told_prompt_tokens
    return Minute(
        seconds=round(report.window_s, 3),
        requests_per_s=round(counts.requests / seconds, 3),
        prompt_tokens_per_s=round(counts.prompt_tokens / seconds, 3),
        generation_tokens_per_s=round(counts.generation_tokens / seconds, 3),
        ttft_ms=_percentiles(report.ttft),
        itl_ms=_percentiles(report.itl),
        cached_share=round(counts.cached_tokens / told, 4) if told else None,
        errors=counts.errors,
        cancelled=counts.cancelled,
    )


def _percentiles(counts: Mapping[int, int]) -> Percentiles:
    def milliseconds(share: float) -> float | None:
        seconds = percentile_s(counts, share)
        return None if seconds is None else round(seconds * 1000, 3)

    return Percentiles(count=sum(counts.values()), p50=milliseconds(0.5), p90=milliseconds(0.9), p99=milliseconds(0.99))


def _sum_counts(parts: Sequence[Counts]) -> Counts:
    return Counts(
        requests=sum(part.requests for part in parts),
        prompt_tokens=sum(part.prompt_tokens for part in parts),
        told_prompt_tokens=sum(part.told_prompt_tokens for part in parts),
        cached_tokens=sum(part.cached_tokens for part in parts),
        generation_tokens=sum(part.generation_tokens for part in parts),
        cancelled=sum(part.cancelled for part in parts),
        errors=_sum_maps(part.errors for part in parts),
    )


Key = TypeVar("Key")


def _sum_maps(maps: Iterable[Mapping[Key, int]]) -> dict[Key, int]:
    total: dict[Key, int] = {}
    for each in maps:
        for key, number in each.items():
            total[key] = total.get(key, 0) + number
    return total


def _sum_series(series: Sequence[Sequence[Number]]) -> list[Number]:
    """Add up second by second, counted from now: a worker that is younger has none of the older ones."""
    backwards: list[Number] = [sum(values) for values in zip_longest(*(each[::-1] for each in series), fillvalue=0)]
    return backwards[::-1]

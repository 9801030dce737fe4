"""Records in, figures out: every metric is a pure function, its formula and unit are the end of its docstring.

Latency counts from when a request was due, so that a client that sends late does not flatter the server. Where a metric
is not defined the function says None. Distributions and rates are of requests that came to their end.
"""

from __future__ import annotations

import inspect
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from scalellm_trt.bench.records import ErrorClass, RequestRecord

IN_TIME_S = 60.0
IN_TIME_SHARE = 0.9


def ttft_ms(record: RequestRecord) -> float | None:
    """Time to first token: None where no content came.

    Formula: ttft_ms = 1000 * (first chunk with content - scheduled), ms
    """
    return 1000 * (record.chunk_s[0] - record.scheduled_s) if record.chunk_s else None


def e2e_latency_ms(record: RequestRecord) -> float:
    """End-to-end latency.

    Formula: e2e_latency_ms = 1000 * (end - scheduled), ms
    """
    return 1000 * (record.end_s - record.scheduled_s)


def tpot_ms(record: RequestRecord) -> float | None:
    """Time per output token of one request (the field also says ITL): None for fewer than two tokens.

    Formula: tpot_ms = (e2e_latency_ms - ttft_ms) / (osl - 1), ms; undefined for osl < 2
    """
    first = ttft_ms(record)
    return None if first is None or record.osl < 2 else (e2e_latency_ms(record) - first) / (record.osl - 1)


def icl_ms(record: RequestRecord) -> list[float]:
    """Inter-chunk latency: what a reader waits between two pieces of an answer; a piece may hold several tokens.

    Formula: icl_ms = 1000 * (chunk - chunk before it), ms, each gap a sample
    """
    return [1000 * (after - before) for before, after in zip(record.chunk_s, record.chunk_s[1:], strict=False)]


def output_token_throughput_per_user(record: RequestRecord) -> float | None:
    """Speed at which one user's answer grows: None where `tpot_ms` is, or is 0.

    Formula: output_token_throughput_per_user = 1000 / tpot_ms, tokens/s/user
    """
    between = tpot_ms(record)
    return 1000 / between if between else None


def isl(record: RequestRecord) -> float:
    """Input sequence length.

    Formula: isl = tokens of the prompt as sent, tokens
    """
    return record.isl


def osl(record: RequestRecord) -> float:
    """Output sequence length.

    Formula: osl = tokens of the answer, by the served tokenizer, tokens
    """
    return record.osl


@dataclass(frozen=True, slots=True, kw_only=True)
class Slo:
    """What a request must keep to be of use; None is not asked for."""

    ttft_ms: float | None = None
    tpot_ms: float | None = None
    e2e_latency_ms: float | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing is asked for."""
        return self.ttft_ms is self.tpot_ms is self.e2e_latency_ms is None

    @property
    def label(self) -> str:
        """Return it for a table."""
        limits = (("TTFT", self.ttft_ms), ("TPOT", self.tpot_ms), ("e2e", self.e2e_latency_ms))
        return ", ".join(f"{name} ≤ {limit:g} ms" for name, limit in limits if limit is not None)

    def is_met_by(self, record: RequestRecord) -> bool:
        """Whether a request came to its end within every limit.

        An answer without content was there when it ended: its TTFT is its latency. One token has no time between
        tokens, so it keeps any limit of it.
        """
        first, latency = ttft_ms(record), e2e_latency_ms(record)
        return (
            record.is_good
            and (self.ttft_ms is None or (latency if first is None else first) <= self.ttft_ms)
            and (self.tpot_ms is None or (tpot_ms(record) or 0.0) <= self.tpot_ms)
            and (self.e2e_latency_ms is None or latency <= self.e2e_latency_ms)
        )


def request_throughput(records: Iterable[RequestRecord], duration_s: float) -> float:
    """Requests that came to their end, a second; 0 where no time passed.

    Formula: request_throughput = good requests / duration, requests/s
    """
    return _rate(sum(record.is_good for record in records), duration_s)


def output_token_throughput(records: Iterable[RequestRecord], duration_s: float) -> float:
    """Tokens of answers that came to their end, a second; those of broken or given up answers are of no use.

    Formula: output_token_throughput = sum of osl of good requests / duration, tokens/s
    """
    return _rate(sum(record.osl for record in records if record.is_good), duration_s)


def input_token_throughput(records: Iterable[RequestRecord], duration_s: float) -> float:
    """Tokens of prompts whose answers came to their end, a second; those from the KV cache count like others.

    Formula: input_token_throughput = sum of isl of good requests / duration, tokens/s
    """
    return _rate(sum(record.isl for record in records if record.is_good), duration_s)


def goodput(records: Iterable[RequestRecord], duration_s: float, slo: Slo) -> float:
    """Requests that met every SLO, a second.

    Formula: goodput = good requests that meet every SLO / duration, requests/s
    """
    return _rate(sum(slo.is_met_by(record) for record in records), duration_s)


def error_counts(records: Iterable[RequestRecord]) -> Mapping[ErrorClass, int]:
    """Failed requests by class, the most frequent first; those given up are no errors.

    Formula: error_counts = requests with an error, by class, requests
    """
    counts = Counter(record.error for record in records if record.error is not None and not record.was_cancelled)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def num_cancelled(records: Iterable[RequestRecord]) -> int:
    """Requests that the load generator gave up.

    Formula: num_cancelled = requests given up by an interrupt or the end of the run, requests
    """
    return sum(record.was_cancelled for record in records)


def share_in_time(records: Iterable[RequestRecord], limit_s: float = IN_TIME_S) -> float | None:
    """Share of requests that came to their end within a limit; None where none was decided.

    One that was given up before the limit decides nothing; one that failed did not come to its end. ScaleLLM's table
    says "timeout" by 60 s and 90% of the requests.

    Formula: share_in_time = good requests with end - scheduled <= limit / all but those given up earlier
    """
    decided = [each for each in records if not each.was_cancelled or e2e_latency_ms(each) > 1000 * limit_s]
    in_time = sum(record.is_good and e2e_latency_ms(record) <= 1000 * limit_s for record in decided)
    return in_time / len(decided) if decided else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """How a figure is called in reports, and which way it is better."""

    title: str
    unit: str
    of: Callable[..., object]
    is_more_better: bool = False

    @property
    def name(self) -> str:
        """Its key in JSON."""
        return self.of.__name__

    @property
    def formula(self) -> str:
        """What the function's docstring says, on one line."""
        return " ".join((inspect.getdoc(self.of) or "").partition("Formula: ")[2].split())


TTFT = Metric(title="TTFT", unit="ms", of=ttft_ms)
TPOT = Metric(title="TPOT (ITL)", unit="ms", of=tpot_ms)
ICL = Metric(title="Inter-chunk latency", unit="ms", of=icl_ms)
E2E = Metric(title="End-to-end latency", unit="ms", of=e2e_latency_ms)
PER_USER = Metric(
    title="Output tokens per user", unit="tokens/s/user", of=output_token_throughput_per_user, is_more_better=True
)
ISL = Metric(title="Input length", unit="tokens", of=isl)
OSL = Metric(title="Output length", unit="tokens", of=osl)
OUTPUT_THROUGHPUT = Metric(
    title="Output token throughput", unit="tokens/s", of=output_token_throughput, is_more_better=True
)
# Of one request each; ICL is of one gap.
LATENCIES = (TTFT, TPOT, ICL, E2E)
PER_REQUEST = (*LATENCIES, PER_USER, ISL, OSL)
AGGREGATES = (
    Metric(title="Request throughput", unit="requests/s", of=request_throughput, is_more_better=True),
    OUTPUT_THROUGHPUT,
    Metric(title="Input token throughput", unit="tokens/s", of=input_token_throughput, is_more_better=True),
    Metric(title="Goodput", unit="requests/s", of=goodput, is_more_better=True),
    Metric(title="Errors", unit="requests", of=error_counts),
    Metric(title="Given up", unit="requests", of=num_cancelled),
    Metric(title="In time", unit="share", of=share_in_time, is_more_better=True),
)


def _rate(amount: float, duration_s: float) -> float:
    return amount / duration_s if duration_s > 0 else 0.0

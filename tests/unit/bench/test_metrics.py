from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalellm_trt.bench import metrics
from scalellm_trt.bench.metrics import Slo
from tests.fakes.bench_runs import record

if TYPE_CHECKING:
    import random

    from scalellm_trt.bench.records import RequestRecord

# Due at 2 s, sent at 2.5 s; content at 3, 3.5 and 4.5 s in chunks of 1, 1 and 3 tokens; over at 5 s.
LATE = record((3.0, 3.5, 4.5), 5.0, chunk_tokens=(1, 1, 3), scheduled_s=2.0, sent_s=2.5, isl=7)
ONE_TOKEN = record((1.0,), 1.25)
EMPTY = record((), 0.75)
BROKEN = record((1.0, 2.0), 2.0, error="connection_lost")
GIVEN_UP = record((1.0, 2.0), 3.0, was_cancelled=True)
SLO = Slo(ttft_ms=1000, tpot_ms=500, e2e_latency_ms=3000)


def test_a_request_has_exactly_these_latencies() -> None:
    assert metrics.ttft_ms(LATE) == 1000
    assert metrics.e2e_latency_ms(LATE) == 3000
    assert metrics.tpot_ms(LATE) == 500
    assert metrics.icl_ms(LATE) == [500, 1000]
    assert metrics.output_token_throughput_per_user(LATE) == 2
    assert (metrics.isl(LATE), metrics.osl(LATE)) == (7, 5)


def test_what_is_not_defined_is_none() -> None:
    assert metrics.tpot_ms(ONE_TOKEN) is None
    assert metrics.output_token_throughput_per_user(ONE_TOKEN) is None
    assert metrics.icl_ms(ONE_TOKEN) == []
    assert metrics.ttft_ms(EMPTY) is None
    assert metrics.tpot_ms(EMPTY) is None
    at_once = record((1.0, 1.0), 1.0)
    assert metrics.tpot_ms(at_once) == 0
    assert metrics.output_token_throughput_per_user(at_once) is None


def test_only_what_came_to_its_end_counts_as_throughput() -> None:
    records = [LATE, ONE_TOKEN, EMPTY, BROKEN, GIVEN_UP]
    assert metrics.request_throughput(records, 2.0) == 1.5
    assert metrics.output_token_throughput(records, 2.0) == 3
    assert metrics.input_token_throughput(records, 2.0) == 13.5
    assert metrics.num_cancelled(records) == 1
    assert metrics.request_throughput(records, 0.0) == 0


def test_goodput_takes_only_requests_within_every_limit() -> None:
    assert metrics.goodput([LATE, ONE_TOKEN, EMPTY, BROKEN, GIVEN_UP], 2.0, SLO) == 1.5
    for slo in (Slo(ttft_ms=999), Slo(tpot_ms=499), Slo(e2e_latency_ms=2999)):
        assert metrics.goodput([LATE], 1.0, slo) == 0
    assert SLO.label == "TTFT ≤ 1000 ms, TPOT ≤ 500 ms, e2e ≤ 3000 ms"
    assert Slo().is_empty
    assert not SLO.is_empty


def test_an_empty_answer_has_its_latency_for_a_first_token_and_one_token_keeps_any_gap() -> None:
    assert not Slo(ttft_ms=700).is_met_by(EMPTY)
    assert Slo(ttft_ms=750).is_met_by(EMPTY)
    assert Slo(tpot_ms=0.1).is_met_by(ONE_TOKEN)


def test_errors_are_counted_by_class_the_most_frequent_first() -> None:
    failed = [record(error=name) for name in ("timeout", "refused", "refused")]
    given_up = record(error="timeout", was_cancelled=True)
    assert list(metrics.error_counts([*failed, LATE, given_up]).items()) == [("refused", 2), ("timeout", 1)]


def test_the_share_in_time_counts_those_that_were_decided() -> None:
    in_time, late = record(end_s=60.0), record(end_s=60.5)
    assert metrics.share_in_time([in_time] * 9 + [late]) == 0.9
    assert metrics.share_in_time([in_time, GIVEN_UP]) == 1
    assert metrics.share_in_time([in_time, record(end_s=61.0, was_cancelled=True)]) == 0.5
    assert metrics.share_in_time([in_time, BROKEN]) == 0.5
    assert metrics.share_in_time([GIVEN_UP]) is None
    assert metrics.share_in_time([in_time], limit_s=30.0) == 0


@pytest.mark.parametrize("metric", [*metrics.PER_REQUEST, *metrics.AGGREGATES], ids=lambda each: each.name)
def test_a_docstring_ends_with_the_formula_and_its_unit(metric: metrics.Metric) -> None:
    assert metric.formula.startswith(f"{metric.name} = ")
    assert metric.unit in metric.formula or metric.unit in ("share",)


times = st.floats(0, 1000, allow_nan=False).map(lambda seconds: round(seconds, 6))
kinds: st.SearchStrategy[dict[str, Any]] = st.sampled_from([{}, {}, {}, {"error": "timeout"}, {"was_cancelled": True}])


@st.composite
def drawn_records(draw: st.DrawFn) -> list[RequestRecord]:
    made = []
    for index in range(draw(st.integers(1, 12))):
        scheduled, *chunks = sorted(draw(st.lists(times, min_size=1, max_size=6)))
        tokens = tuple(draw(st.integers(1, 3)) for _ in chunks)
        last = chunks[-1] if chunks else scheduled
        fields = {"index": index, "scheduled_s": scheduled, "chunk_tokens": tokens, **draw(kinds)}
        made.append(record(chunks, last + draw(times), **fields))
    return made


limits = st.one_of(st.none(), st.floats(0, 1e6))
slos = st.builds(Slo, ttft_ms=limits, tpot_ms=limits, e2e_latency_ms=limits)


@given(drawn_records(), st.floats(0.001, 1000), slos)
def test_goodput_is_never_more_than_throughput(records: list[RequestRecord], duration_s: float, slo: Slo) -> None:
    assert metrics.goodput(records, duration_s, slo) <= metrics.request_throughput(records, duration_s)


@given(drawn_records(), slos, st.randoms(use_true_random=False))
def test_the_order_of_records_does_not_matter(records: list[RequestRecord], slo: Slo, dice: random.Random) -> None:
    mixed = records.copy()
    dice.shuffle(mixed)
    assert metrics.goodput(records, 7.0, slo) == metrics.goodput(mixed, 7.0, slo)
    assert metrics.output_token_throughput(records, 7.0) == metrics.output_token_throughput(mixed, 7.0)
    assert list(metrics.error_counts(records).items()) == list(metrics.error_counts(mixed).items())
    assert metrics.share_in_time(records) == metrics.share_in_time(mixed)


def stretched(found: RequestRecord, by: float) -> RequestRecord:
    return dataclasses.replace(
        found,
        scheduled_s=found.scheduled_s * by,
        sent_s=found.sent_s * by,
        chunk_s=tuple(each * by for each in found.chunk_s),
        end_s=found.end_s * by,
    )


@given(drawn_records(), st.sampled_from([0.25, 2.0, 8.0]))
def test_time_that_runs_faster_scales_every_metric(records: list[RequestRecord], by: float) -> None:
    slower = [stretched(each, by) for each in records]
    for one, other in zip(records, slower, strict=True):
        for of in (metrics.ttft_ms, metrics.e2e_latency_ms, metrics.tpot_ms):
            before = of(one)
            assert of(other) == (None if before is None else pytest.approx(before * by))
        assert metrics.icl_ms(other) == pytest.approx([each * by for each in metrics.icl_ms(one)])
    for rate in (metrics.request_throughput, metrics.output_token_throughput, metrics.input_token_throughput):
        assert rate(slower, 7.0 * by) == pytest.approx(rate(records, 7.0) / by)
    slo = Slo(ttft_ms=300, tpot_ms=200, e2e_latency_ms=1000)
    wider = Slo(ttft_ms=300 * by, tpot_ms=200 * by, e2e_latency_ms=1000 * by)
    assert metrics.goodput(slower, 7.0 * by, wider) == pytest.approx(metrics.goodput(records, 7.0, slo) / by)

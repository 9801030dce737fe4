from __future__ import annotations

import dataclasses
import random
from typing import TYPE_CHECKING

import pytest

from scalellm_trt.bench import summary
from scalellm_trt.bench.metrics import Slo
from scalellm_trt.bench.run import Load
from tests.fakes import bench_runs
from tests.fakes.bench_runs import cell, record, run, target

if TYPE_CHECKING:
    from scalellm_trt.bench.records import RequestRecord

SLO = Slo(ttft_ms=1500)


def test_rounds_of_a_load_are_pooled_and_warm_up_is_left_out() -> None:
    described = run([cell(0), cell(1, round=1, end_s=30.0)])
    records = [
        record(index=0),
        record((2.0, 2.5), index=1),
        record(index=2, is_warmup=True),
        record(cell=1, index=0, osl=5, scheduled_s=0.5),
        record(cell=1, index=1, error="refused"),
    ]
    (found,) = summary.summarize(described, records, SLO)
    assert (found.cells, found.duration_s, found.num_requests, found.num_good) == ((0, 1), 40.0, 4, 3)
    assert found.request_throughput.value == pytest.approx(3 / 40)
    assert found.output_token_throughput.value == pytest.approx((3 + 2 + 5) / 40)
    assert found.input_token_throughput.value == pytest.approx(30 / 40)
    assert found.goodput is not None
    assert found.goodput.value == pytest.approx(2 / 40)
    assert found.errors == {"refused": 1}
    assert found.distributions["ttft_ms"].p50.value == 1000
    assert found.distributions["ttft_ms"].count == 3
    assert found.distributions["icl_ms"].count == 5


def test_rows_come_by_load_then_target() -> None:
    poisson = Load(mode="poisson", rate_per_s=2.0)
    cells = [cell(0, 16), cell(1, 2), cell(2, 2, target=1), cell(3, load=poisson), cell(4, 2, round=1)]
    described = run(cells, [target("a"), target("b")])
    found = summary.summarize(described, [], SLO)
    assert [(each.load.label, each.target, each.cells) for each in found] == [
        ("2", 0, (1, 4)),
        ("2", 1, (2,)),
        ("16", 0, (0,)),
        ("2/s poisson", 0, (3,)),
    ]
    assert {each.outcome for each in found} == {"nothing"}


def test_without_streaming_there_is_no_first_token() -> None:
    described = run([cell()], [target(streams=False)])
    (found,) = summary.summarize(described, [record((1.5,))], SLO)
    assert set(found.distributions) == {"e2e_latency_ms", "isl", "osl"}


@pytest.mark.parametrize(
    ("others", "outcome"),
    [
        ([], "measured"),
        ([record(error="timeout", end_s=60.0)], "measured"),
        ([record(error="timeout", end_s=60.0)] * 2, "timeout"),
        ([record(end_s=61.0)] * 2, "timeout"),
        ([record(error="server_error")] * 2, "failed"),
        ([record(was_cancelled=True)] * 20, "measured"),
    ],
)
def test_fewer_than_nine_of_ten_in_time_is_a_timeout(others: list[RequestRecord], outcome: str) -> None:
    records = [dataclasses.replace(each, index=at) for at, each in enumerate([record()] * 9 + others)]
    (found,) = summary.summarize(run([cell()]), records, SLO)
    assert found.outcome == outcome


def test_the_order_of_records_does_not_matter() -> None:
    described, records = bench_runs.drawn(loads=(1, 2))
    mixed = records.copy()
    random.Random(1).shuffle(mixed)
    assert summary.summarize(described, records, SLO) == summary.summarize(described, mixed, SLO)


def test_in_a_closed_loop_requests_of_one_length_leave_no_doubt_of_the_rate() -> None:
    # Four users in step: all answers end together, which slices of time would take for an unsteady server.
    records = [
        record((turn + 0.5, turn + 1.0), index=4 * turn + user, scheduled_s=float(turn))
        for turn in range(10)
        for user in range(4)
    ]
    (closed,) = summary.summarize(run([cell(0, 4)]), records, SLO)
    rate = closed.request_throughput
    assert (rate.low, rate.value, rate.high) == pytest.approx((4, 4, 4))
    assert closed.output_token_throughput.value == pytest.approx(8)
    (opened,) = summary.summarize(run([cell(0, load=Load(mode="poisson", rate_per_s=4.0))]), records, SLO)
    assert opened.request_throughput.value == pytest.approx(4)
    assert opened.request_throughput.high > 5


def test_requests_of_different_length_leave_doubt_of_the_rate() -> None:
    records = [record((0.1,), end_s=0.2 + 0.4 * (index % 5), index=index) for index in range(60)]
    (found,) = summary.summarize(run([cell(0, 6)]), records, SLO)
    rate = found.request_throughput
    assert rate.value == pytest.approx(6)
    assert 4 < rate.low < 5.5
    assert 6.5 < rate.high < 8


def test_goodput_is_within_throughput_with_its_interval() -> None:
    described, records = bench_runs.drawn(loads=(2,))
    for found in summary.summarize(described, records, Slo(ttft_ms=75)):
        assert found.goodput is not None
        assert found.goodput.value <= found.request_throughput.value
        assert found.goodput.high <= found.request_throughput.high
        assert found.request_throughput.low <= found.request_throughput.value <= found.request_throughput.high

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest

from scalellm_trt.bench import ceiling, honesty, summary
from scalellm_trt.bench.metrics import Slo
from tests.fakes import bench_runs, gpu_planning
from tests.fakes.bench_runs import CALM, cell, record, run, target

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scalellm_trt.bench.ceiling import Ceiling
    from scalellm_trt.bench.honesty import Doubt
    from scalellm_trt.bench.records import RequestRecord
    from scalellm_trt.bench.run import Run

FAST = ceiling.of_plan(gpu_planning.make())
assert FAST is not None
# Weightless: nothing beats it.
EASY = dataclasses.replace(FAST, rates=dataclasses.replace(FAST.rates, peak_flops=1e30, bandwidth_bytes_per_s=1e30))


def doubts(described: Run, records: Sequence[RequestRecord], **ceilings: Ceiling) -> dict[str, Doubt]:
    """Return what is doubted by kind; `ceilings` are of t0, t1, …."""
    known = {int(name[1:]): each for name, each in (ceilings or {"t0": EASY, "t1": EASY}).items()}
    found = honesty.examine(
        honesty.Seen(
            run=described,
            summaries=summary.summarize(described, records, Slo()),
            records=records,
            ceilings=known,
        )
    )
    return {each.kind: each for each in found}


def many(count: int = 120, **fields: Any) -> list[RequestRecord]:
    return [record(**{"index": index, **fields}) for index in range(count)]


def test_nothing_is_doubted_without_a_reason() -> None:
    assert doubts(run([cell()]), many()) == {}


def test_an_interrupted_run_says_what_is_missing() -> None:
    found = doubts(run([cell(is_complete=False)], is_partial=True), many())
    assert found["partial"].text == "The run was interrupted. Not complete: gateway at 1."
    assert "cells that were to come" in doubts(run([cell()], is_partial=True), many())["partial"].text


def test_without_streaming_there_is_a_warning() -> None:
    found = doubts(run([cell()], [target(streams=False)]), many())
    assert found["not_streaming"].text.startswith("gateway was asked without streaming")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"cpu_share": 0.93}, "used 0.93 of a core"),
        ({"loop_lag_p50_ms": 3.0}, "late by 3.00 ms (p50)"),
        ({"loop_lag_p99_ms": 55.0}, "late by 55.0 ms (p99)"),
        ({"send_delay_p99_ms": 120.0}, "sent late by 120 ms (p99)"),
    ],
)
def test_a_client_that_could_not_keep_up_is_named_with_its_figure(changes: dict[str, Any], said: str) -> None:
    busy = dataclasses.replace(CALM, **changes)
    records = many() + many(cell=1)
    found = doubts(run([cell(0), cell(1, 64, client=busy)]), records)
    assert said in found["client"].text
    assert "in 1 of 2 rows" in found["client"].text
    assert "gateway at 64" in found["client"].text


def test_failures_are_named_because_latencies_are_of_the_survivors() -> None:
    records = many() + many(2, error="timeout")
    records = [dataclasses.replace(each, index=at) for at, each in enumerate(records)]
    assert "gateway: 2 of 122 requests failed at 1 (timeout 2)" in doubts(run([cell()]), records)["failures"].text


def test_rounds_that_disagree_are_named() -> None:
    described = run([cell(0), cell(1, round=1)])
    alike = many() + many(cell=1, chunk_s=(1.05, 1.3, 1.55))
    assert "noisy" not in doubts(described, alike)
    found = doubts(described, many() + many(cell=1, chunk_s=(1.2, 1.45, 1.7)))
    assert "median TTFT 1,000, 1,200 ms" in found["noisy"].text
    # Medians of few and different samples differ by chance.
    loose = [record((first, first + 0.25), index=at) for at, first in enumerate((1.0, 1.3, 1.0))]
    assert "noisy" not in doubts(described, loose + [dataclasses.replace(each, cell=1) for each in loose[1:]])


def test_answers_of_different_length_are_named() -> None:
    described = run([cell(0), cell(1, target=1)], [target("a"), target("b")])
    found = doubts(described, many() + many(cell=1, osl=5))
    assert "at 1 of 1 loads, most at 1: mean a 3.00, b 5.00 tokens" in found["output_lengths"].text
    assert "output_lengths" not in doubts(described, many() + many(cell=1))


def test_counts_that_differ_from_the_servers_are_named() -> None:
    found = doubts(run([cell()]), many(server_osl=3, server_isl=30))
    assert "different tokens in prompts: 1,200 and 3,600, different in 120 of 120" in found["token_counts"].text
    assert "token_counts" not in doubts(run([cell()]), many(server_osl=3, server_isl=10))
    assert "answers: 360 and 480" in doubts(run([cell()]), many(server_osl=4))["token_counts"].text


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        # 250 ms a token are slow; 5 ms are faster than 12.7 GB can be read at 1,008 GB/s.
        ({"chunk_s": (1.0, 1.005, 1.01)}, "median TPOT 5.00 ms beats the roofline of rtx4090, 12.8 ms"),
        ({"count": 3, "isl": 2000, "chunk_s": (0.1, 0.35)}, "median TTFT 100 ms beats the roofline of rtx4090, 31"),
        ({"isl": 2000, "end_s": 2.0}, "input and output 24,036 tokens/s beats the roofline of rtx4090, 6,510 tokens/s"),
    ],
)
def test_what_no_card_can_do_is_named(fields: dict[str, Any], said: str) -> None:
    assert FAST is not None
    assert said in doubts(run([cell()]), many(**fields), t0=FAST)["roofline"].text


def test_what_the_card_can_do_is_not_doubted() -> None:
    assert FAST is not None
    assert "roofline" not in doubts(run([cell()]), many(), t0=FAST)


def test_notes_come_last_and_say_what_is_good_to_know() -> None:
    described = run([cell(), cell(1, 2, target=1)], [target("a"), target("b")], is_partial=True)
    records = many(8, cached_tokens=5, chunk_tokens=(4, 1, 1)) + many(cell=1)
    found = doubts(described, records, t0=EASY)
    kinds = [each.kind for each in found.values() if each.is_note]
    assert kinds == ["cached_prompts", "coarse_chunks", "few_samples", "roofline_not_checked"]
    assert next(iter(found)) == "partial"
    assert "a: 50% of the prompt tokens" in found["cached_prompts"].text
    assert "a sends 2.00 tokens a chunk (4.00 in the first)" in found["coarse_chunks"].text
    assert "1 of 2 rows have fewer than 100 finished requests (least 8, a at 1)" in found["few_samples"].text
    assert "roofline: b." in found["roofline_not_checked"].text


def test_a_drawn_run_is_examined_whole() -> None:
    described, records = bench_runs.drawn()
    assert set(doubts(described, records)) <= {"few_samples", "output_lengths"}

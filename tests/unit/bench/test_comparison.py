from __future__ import annotations

import dataclasses
import json
import random
from typing import TYPE_CHECKING

import pytest

from scalellm_trt.bench import comparison, comparison_table, metrics, records
from scalellm_trt.bench.comparison import verdict
from scalellm_trt.bench.run import Cell, ClientHealth, Load, Run, Target, WorkloadNote
from scalellm_trt.bench.statistics import Interval
from scalellm_trt.cli import command_line
from scalellm_trt.errors import RecipeError
from tests.fakes import bench_runs

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from scalellm_trt.bench.records import RequestRecord
    from scalellm_trt.bench.run import LoadMode

LOAD = Load(mode="closed", concurrency=2)
HEALTH = ClientHealth(num_processes=1, cpu_share=0, loop_lag_p50_ms=0, loop_lag_p99_ms=0, send_delay_p99_ms=0)


def made(
    ttft_ms: Mapping[str, list[float]], *, noise: float = 0.02, digest: str = "d"
) -> tuple[Run, list[RequestRecord]]:
    """Return a run in which a target has these times to the first token, one for each round, with noise in requests."""
    drawing = random.Random(1)
    cells: list[Cell] = []
    found: list[RequestRecord] = []
    for place, rounds in enumerate(ttft_ms.values()):
        for number, middle in enumerate(rounds):
            index = len(cells)
            cells.append(
                Cell(
                    index=index,
                    target=place,
                    workload=0,
                    load=LOAD,
                    round=number,
                    begin_s=0.0,
                    end_s=1.0,
                    client=HEALTH,
                    is_complete=True,
                )
            )
            for request in range(20):
                first = middle / 1000 * drawing.uniform(1 - noise, 1 + noise)
                found.append(
                    records.RequestRecord(
                        cell=index,
                        index=request,
                        request_id="",
                        scheduled_s=0.0,
                        sent_s=0.0,
                        isl=4,
                        osl=2,
                        chunk_s=(first, first + 0.01),
                        chunk_tokens=(1, 1),
                        end_s=first + 0.01,
                        max_tokens=2,
                    )
                )
    targets = tuple(Target(name=name, kind="openai", url="", model="", streams=True, facts={}) for name in ttft_ms)
    note = WorkloadNote(name="w", seed=1, isl_p50=4, isl_max=4, osl_p50=2, digest=digest)
    run = Run(
        started="",
        command="",
        environment={},
        targets=targets,
        workloads=(note,),
        cells=tuple(cells),
        timeout_s=60,
        is_partial=False,
    )
    return run, found


def ttft(ratios: list[comparison.Ratio]) -> comparison.Ratio:
    (found,) = [ratio for ratio in ratios if ratio.metric is metrics.TTFT]
    return found


def test_a_target_that_is_slower_in_every_round_is_worse_and_the_ratio_says_by_how_much() -> None:
    found = ttft(comparison.within(*made({"a": [100, 120, 90, 110], "b": [150, 180, 135, 165]})))
    assert found.interval is not None
    assert found.interval.value == pytest.approx(1.5, rel=0.02)
    assert 1.45 < found.interval.low < found.interval.high < 1.55  # rounds are pairs: their own noise cancels out
    assert (found.target, found.reference, found.verdict) == ("b", "a", "worse")


def test_rounds_that_disagree_leave_no_verdict() -> None:
    found = ttft(comparison.within(*made({"a": [100, 100, 100, 100], "b": [70, 140, 80, 130]})))
    assert found.verdict == "no difference"


def test_equal_targets_are_not_told_apart_and_better_ones_are() -> None:
    assert ttft(comparison.within(*made({"a": [100] * 5, "b": [100] * 5}))).verdict == "no difference"
    assert ttft(comparison.within(*made({"a": [100] * 5, "b": [60] * 5}))).verdict == "better"


@pytest.mark.parametrize(
    ("low", "high", "threshold", "found"),
    [
        (1.01, 1.2, 0.0, "worse"),
        (1.01, 1.2, 0.05, "no difference"),
        (1.06, 1.2, 0.05, "worse"),
        (0.8, 1.0, 0.0, "no difference"),
        (0.8, 0.99, 0.0, "better"),
        (0.8, 0.99, 0.05, "no difference"),
    ],
)
def test_a_verdict_needs_the_whole_interval_beyond_the_threshold(
    low: float, high: float, threshold: float, found: str
) -> None:
    assert verdict(Interval(value=(low + high) / 2, low=low, high=high), threshold) == found
    assert verdict(None, threshold) == "no difference"


def test_a_run_before_is_compared_by_the_names_of_targets() -> None:
    now, before = made({"b": [130] * 3}), made({"a": [1] * 3, "b": [100] * 3})
    found = ttft(comparison.against(now, before))
    assert (found.reference, found.verdict) == ("baseline", "worse")
    assert found.interval is not None
    assert found.interval.value == pytest.approx(1.3, rel=0.03)


def test_a_baseline_of_other_work_or_of_other_targets_is_refused() -> None:
    with pytest.raises(RecipeError, match="other prompts"):
        comparison.against(made({"a": [1]}), made({"a": [1]}, digest="e"))
    with pytest.raises(RecipeError, match="none of these targets"):
        comparison.against(made({"a": [1]}), made({"other": [1]}))


def test_rounds_without_an_answer_are_left_out() -> None:
    run, found = made({"a": [100, 100], "b": [150, 150]})
    failed = [dataclasses.replace(each, error="timeout") if each.cell == 2 else each for each in found]
    ratio = ttft(comparison.within(run, failed))
    assert ratio.interval is not None
    assert ratio.interval.value == pytest.approx(1.5, rel=0.03)
    none = [dataclasses.replace(each, error="timeout") for each in found]
    assert ttft(comparison.within(run, none)).interval is None


def test_the_command_ends_with_8_where_a_target_became_worse(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, middle in (("before", 100.0), ("now", 130.0)):
        run, found = made({"a": [middle] * 3})
        (tmp_path / name).mkdir()
        run.write(tmp_path / name)
        records.write_all(found, tmp_path / name / "records.jsonl")
    arguments = ["compare", "--run", str(tmp_path / "now"), "--baseline", str(tmp_path / "before")]
    assert command_line.run(arguments) == 8
    assert "a at 2: TTFT" in capsys.readouterr().err
    assert command_line.run([*arguments, "--threshold", "0.5"]) == 0
    backwards = ["compare", "--run", str(tmp_path / "before"), "--baseline", str(tmp_path / "now"), "--json"]
    assert command_line.run(backwards) == 0
    assert '"verdict": "better"' in capsys.readouterr().out


# Seconds in which four answers of 3 tokens end: two at a time, one at a time.
BUSY, IDLE = 3.0, 6.0


def rates(
    seconds: Mapping[str, list[float]], *, failed: Mapping[str, int] | None = None, mode: LoadMode = "closed"
) -> tuple[Run, list[RequestRecord]]:
    """Return a run in which four answers of a target take these times in all, one for each round; some fail."""
    load = LOAD if mode == "closed" else Load(mode=mode, rate_per_s=1.0)
    cells: list[Cell] = []
    found: list[RequestRecord] = []
    for place, (name, rounds) in enumerate(seconds.items()):
        for number, end_s in enumerate(rounds):
            cells.append(bench_runs.cell(len(cells), target=place, round=number, load=load, end_s=end_s))
            for index in range(4):
                error = "server_error" if index < (failed or {}).get(name, 0) else None
                found.append(bench_runs.record((1.0, 1.25, 1.5), cell=cells[-1].index, index=index, error=error))
    return bench_runs.run(cells, [bench_runs.target(name) for name in seconds]), found


def throughput(ratios: list[comparison.Ratio]) -> comparison.Ratio:
    (found,) = [ratio for ratio in ratios if ratio.metric is metrics.OUTPUT_THROUGHPUT]
    return found


def test_throughput_is_tokens_of_finished_answers_over_the_time_of_a_round() -> None:
    found = comparison.within(*rates({"a": [BUSY] * 3, "b": [IDLE] * 3}))
    made = throughput(found)
    assert made.interval == Interval(value=0.5, low=0.5, high=0.5)
    assert (made.verdict, made.better, made.num_rounds) == ("worse", "a", 3)
    # Each answer took as long on both sides: no latency sees it.
    assert {each.verdict for each in found if each is not made} == {"no difference"}
    turned = throughput(comparison.within(*rates({"b": [IDLE] * 3, "a": [BUSY] * 3})))
    assert turned.interval == Interval(value=2.0, low=2.0, high=2.0)
    assert (turned.verdict, turned.better) == ("better", "a")


def test_rounds_are_pairs_in_one_run_and_drawn_by_themselves_against_a_run_before() -> None:
    paired = throughput(comparison.within(*rates({"a": [2, 4, 8], "b": [4, 8, 16]})))
    assert paired.interval == Interval(value=0.5, low=0.5, high=0.5)
    now, before = rates({"a": [4, 8, 16]}), rates({"a": [2, 4, 8]})
    alone = throughput(comparison.against(now, before))
    assert alone.interval is not None
    assert (alone.interval.value, alone.verdict) == (0.5, "no difference")
    assert alone.interval.low < 0.2
    assert alone.interval.high > 1.9


def test_rounds_that_disagree_leave_no_verdict_on_throughput() -> None:
    found = throughput(comparison.within(*rates({"a": [4] * 4, "b": [2, 8, 3, 7]})))
    assert found.interval is not None
    assert [found.interval.low, found.interval.high] == pytest.approx([0.5, 2.0])
    assert found.verdict == "no difference"


def test_requests_of_a_round_are_resampled_too() -> None:
    run, found = rates({"a": [4], "b": [4]})
    # One answer of b is of 9 tokens, in the same time: 18 tokens against 12; by chance it is drawn 0 to 4 times.
    longer = [
        dataclasses.replace(each, chunk_tokens=(3, 3, 3), osl=9) if (each.cell, each.index) == (1, 0) else each
        for each in found
    ]
    made = throughput(comparison.within(run, longer))
    assert made.interval is not None
    assert [made.interval.low, made.interval.value, made.interval.high] == pytest.approx([1.0, 1.5, 2.5])
    assert made.verdict == "no difference"


def test_the_order_of_records_does_not_matter_to_ratios() -> None:
    run, found = bench_runs.drawn(loads=(4,))
    mixed = found.copy()
    random.Random(3).shuffle(mixed)
    assert comparison.within(run, mixed) == comparison.within(run, found)


def test_answers_that_fail_are_seen_by_throughput_alone() -> None:
    now, before = rates({"a": [4] * 5}, failed={"a": 3}), rates({"a": [4] * 5})
    ratios = comparison.against(now, before)
    assert throughput(ratios).verdict == "worse"
    assert {each.verdict for each in ratios if each is not throughput(ratios)} == {"no difference"}
    none = throughput(comparison.within(*rates({"a": [4] * 3, "b": [4] * 3}, failed={"b": 4})))
    assert none.interval == Interval(value=0, low=0, high=0)
    assert (none.verdict, none.better) == ("worse", "a")
    no_reference = throughput(comparison.within(*rates({"a": [4] * 3, "b": [4] * 3}, failed={"a": 4})))
    assert (no_reference.interval, no_reference.verdict) == (None, "no difference")


def test_a_reference_that_mostly_fails_gives_a_wide_interval_and_no_infinity() -> None:
    found = throughput(comparison.within(*rates({"a": [4], "b": [4]}, failed={"a": 3})))
    assert found.interval is not None
    # One answer of four: a resample has three of them with 5%, none with 32%, which counts as one.
    assert [found.interval.low, found.interval.value, found.interval.high] == pytest.approx([4 / 3, 4, 4])
    zero = throughput(comparison.against(rates({"a": [4] * 3}), rates({"a": [4] * 3}, failed={"a": 4})))
    assert zero.interval is None


def test_rounds_in_which_the_reference_made_nothing_have_no_ratio() -> None:
    run, found = rates({"a": [4] * 3, "b": [4] * 3})
    broken = [dataclasses.replace(each, error="server_error") if each.cell == 1 else each for each in found]
    paired = throughput(comparison.within(run, broken))
    assert paired.interval == Interval(value=1, low=1, high=1)
    # Drawn by itself, such a round only lowers what the reference may have made.
    alone = throughput(comparison.against(rates({"a": [4] * 3}), (run, broken)))
    assert alone.interval is not None
    assert (alone.interval.low, alone.interval.value, alone.interval.high) == (1, 1, 1)


def test_a_verdict_of_one_round_is_marked() -> None:
    one, three = (comparison.within(*rates({"a": [BUSY] * n, "b": [IDLE] * n})) for n in (1, 3))
    assert comparison_table.table(one).rows[-1][5] == "a is better (one round)"
    assert comparison_table.table(three).rows[-1][5] == "a is better"
    assert comparison_table.table(one).rows[0][5] == "no difference"


def test_slices_of_time_are_resampled_in_an_open_loop() -> None:
    # All four end in one slice of twenty: whether a resample has it is chance.
    found = throughput(comparison.within(*rates({"a": [4.0], "b": [4.0]}, mode="poisson")))
    assert found.interval is not None
    assert found.interval.value == 1
    assert found.interval.low == 0
    assert found.interval.high > 1


def test_more_is_better_of_a_throughput() -> None:
    high, low = Interval(value=1.2, low=1.1, high=1.3), Interval(value=0.8, low=0.75, high=0.9)
    assert [verdict(each, 0, is_more_better=True) for each in (high, low)] == ["better", "worse"]
    assert [verdict(each, 0.2, is_more_better=True) for each in (high, low)] == ["no difference"] * 2
    assert [verdict(each, 0) for each in (high, low)] == ["worse", "better"]


def test_the_command_says_who_is_better_and_what_a_ratio_does_not_know(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, now = rates({"a": [4] * 3, "b": [8] * 3}), rates({"a": [8] * 3, "b": [8] * 3})
    for name, (run, found) in (("before", before), ("now", now)):
        bench_runs.write(run, found, tmp_path / name)
    assert command_line.run(["compare", "--run", str(tmp_path / "before")]) == 0
    shown = capsys.readouterr().out
    (row,) = [line.split() for line in shown.splitlines() if "Output token throughput" in line and "b " in line[:3]]
    assert row[-6:] == ["a", "is", "better", "3", "0.500", "(0.500–0.500)"]
    assert "Requests are taken as independent" in shown
    arguments = ["compare", "--run", str(tmp_path / "now"), "--baseline", str(tmp_path / "before"), "--json"]
    assert command_line.run(arguments) == 8
    said = capsys.readouterr()
    assert "a at 2: Output token throughput × 0.500 (0.500–0.500)" in said.err
    assert "TTFT" not in said.err
    body = json.loads(said.out.splitlines()[0])  # the second line is the error
    assert body["limits"].startswith("Interval, 95%")
    of_a = [each for each in body["ratios"] if each["reference"] == "baseline" and each["target"] == "a"]
    (rate,) = [each for each in of_a if each["is_more_better"]]
    assert (rate["metric"], rate["better"], rate["ratio"]["value"]) == ("output_token_throughput", "baseline", 0.5)


def test_one_target_and_no_baseline_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.run(["compare", "--target", "a=http://127.0.0.1:1"]) == 2
    assert "nothing to compare with" in capsys.readouterr().err

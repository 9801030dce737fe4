from __future__ import annotations

import dataclasses
import random
from typing import TYPE_CHECKING

import pytest

from scalellm_trt.bench import comparison, metrics, records
from scalellm_trt.bench.comparison import verdict
from scalellm_trt.bench.run import Cell, ClientHealth, Load, Run, Target, WorkloadNote
from scalellm_trt.bench.statistics import Interval
from scalellm_trt.cli import command_line
from scalellm_trt.errors import RecipeError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from scalellm_trt.bench.records import RequestRecord

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


def test_one_target_and_no_baseline_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.run(["compare", "--target", "a=http://127.0.0.1:1"]) == 2
    assert "nothing to compare with" in capsys.readouterr().err

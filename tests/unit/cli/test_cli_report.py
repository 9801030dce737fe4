from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from scalellm_trt.cli.command_line import run
from tests.fakes import bench_runs

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return bench_runs.write(*bench_runs.drawn(loads=(1, 2)), tmp_path / "run")


def test_report_prints_tables_and_writes_the_page(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["report", str(directory), "--slo", "ttft:100,e2e:500", "--hardware", "gateway=rtx4090"]) == 0
    shown = capsys.readouterr()
    assert "TTFT / time between tokens" in shown.out
    assert "Goodput: TTFT ≤ 100 ms, e2e ≤ 500 ms." in shown.out
    assert "Economic score" in shown.out
    assert shown.err == f"Report: {directory / 'report.html'}\n"
    assert (directory / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_report_prints_json_or_markdown_and_writes_only_what_is_named(
    directory: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(["report", str(directory), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["rows"]) == 4
    assert run(["report", str(directory), "--markdown", "--out", str(tmp_path / "page.html")]) == 0
    assert capsys.readouterr().out.startswith("# Benchmark of")
    assert (tmp_path / "page.html").exists()
    assert not (directory / "report.html").exists()


def test_report_holds_a_target_against_the_roofline_of_its_recipe(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = ["--hardware", "rtx4090", "--recipe", "vllm=recipes/rtx4090.yaml"]
    assert run(["report", str(directory), "--json", *card]) == 0
    doubts = json.loads(capsys.readouterr().out)["doubts"]
    assert [each["text"] for each in doubts if each["kind"] == "roofline_not_checked"] == [
        "Not compared with a roofline: gateway. Name its recipe (--recipe), and for a processor its memory bandwidth "
        "(--memory-bandwidth)."
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--slo", "ttft:fast"], 2, "--slo: 'ttft:fast' is no limit"),
        (["--slo", "speed:1"], 2, "Allowed: ttft, tpot"),
        (["--hardware", "other=t4"], 2, "the run has no target 'other'\n  It has: gateway, vllm."),
        (["--hardware", "rtx409"], 2, "'rtx409' is not known\n  Nearest: rtx4090."),
        (["--out", "absent/report.html"], 6, "absent/report.html cannot be written"),
    ],
)
def test_a_wrong_option_says_what_is_allowed(
    directory: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, said: str
) -> None:
    assert run(["report", str(directory), *arguments]) == code
    assert said in capsys.readouterr().err


def test_a_directory_without_a_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["report", str(tmp_path)]) == 6
    assert "not a run of `scalellm-trt bench`" in capsys.readouterr().err

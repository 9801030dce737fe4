"""`build` and `cache` on a tiny model: what people and machines read."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from scalellm_trt.cli import command_line, timeline
from scalellm_trt.pipeline import StepReport
from tests.fakes import tiny_models

if TYPE_CHECKING:
    from pathlib import Path

RECIPE = """schema: 1
name: tiny
model:
  source: ./model
hardware: cpu
backend: openvino
limits:
  max_batch_size: 4
  max_seq_len: 64
serving:
  kv_cache_tokens: 256
"""


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_models.write_model(tmp_path / "model")
    (tmp_path / "tiny.yaml").write_text(RECIPE)


def test_a_build_in_a_pipe_prints_plain_lines_and_where_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.run(["build", "tiny.yaml"]) == 0
    shown = capsys.readouterr().out
    for step in ("plan", "quantize", "compile", "assemble"):
        assert f"{step}: started\n" in shown
    assert "\x1b" not in shown
    assert "scripts/tritonserver --model-repository triton_repo" in shown
    assert command_line.run(["build", "tiny.yaml"]) == 0
    assert "tiny: nothing changed, 0 stages run" in capsys.readouterr().out


def test_a_build_as_json_is_one_document_with_every_step(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.run(["build", "tiny.yaml", "--json", "--until", "compile"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["name"], report["num_stages_run"]) == ("tiny", 2)
    assert [step["step"] for step in report["steps"]] == ["plan", "quantize", "compile"]
    assert report["steps"][1]["reasons"] == ["not built yet"]


def test_a_dry_run_says_what_would_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.run(["build", "tiny.yaml", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "quantize: would run: not built yet\n" in shown
    assert "compile: would run: the checkpoint would change\n" in shown
    assert command_line.run(["build", "tiny.yaml", "--dry-run", "--json"]) == 0
    steps = json.loads(capsys.readouterr().out)
    assert [step["would_run"] for step in steps] == [False, True, True, True]


def test_cache_lists_verifies_and_prunes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    command_line.run(["build", "tiny.yaml"])
    capsys.readouterr()
    assert command_line.run(["cache", "ls", "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)
    assert [(entry["stage"], entry["used_by"]) for entry in entries] == [("compile", ["tiny"]), ("quantize", ["tiny"])]
    assert command_line.run(["cache", "ls"]) == 0
    assert "tiny" in capsys.readouterr().out
    assert command_line.run(["cache", "verify"]) == 0
    assert capsys.readouterr().out.count("intact") == 2
    assert command_line.run(["cache", "prune"]) == 0
    assert capsys.readouterr().out == "nothing to remove\n"
    (tmp_path / "builds" / "tiny" / "compile" / "openvino_model.xml").write_text("<net/>")
    assert command_line.run(["cache", "verify"]) == 6
    printed = capsys.readouterr()
    assert "openvino_model.xml: content differs" in printed.out
    assert "1 of 2 artefacts are damaged" in printed.err


def test_the_terminal_timeline_draws_each_step_and_why_it_ran() -> None:
    screen = Console(file=io.StringIO(), force_terminal=True, width=120)
    with timeline.timeline(screen) as reporter:
        reporter.started("quantize")
        reporter.progress("writing lm_head.weight", 0.5)
        reporter.finished(StepReport(step="quantize", ran=True, reasons=("not built yet",), seconds=1.0))
    assert isinstance(screen.file, io.StringIO)
    shown = screen.file.getvalue()
    assert "quantize" in shown
    assert "ran: not built yet" in shown


def test_an_outcome_shows_three_reasons_and_counts_the_rest() -> None:
    report = StepReport(step="compile", ran=True, reasons=("a", "b", "c", "d", "e"), seconds=1.0)
    assert timeline.outcome(report) == "ran: a; b; c; and 2 more"

from __future__ import annotations

import dataclasses
import io
import json
from typing import TYPE_CHECKING

import typer
from typer.testing import CliRunner

from scalellm_trt.cli import plan as plan_command
from scalellm_trt.cli.tables import console
from scalellm_trt.plan import to_json
from tests.fakes.planning import GIB, MACHINE, make

if TYPE_CHECKING:
    from pathlib import Path

    from scalellm_trt.detect import Machine
    from scalellm_trt.pipeline import Step, Workspace
    from scalellm_trt.plan import Plan


def explain(recipe: Path, workspace: Workspace) -> tuple[Plan, list[tuple[Step, list[str]]]]:
    return make(), [("plan", []), ("quantize", []), ("compile", []), ("assemble", ["limits.max_batch_size 4 → 8"])]


def run(*arguments: str) -> str:
    app = typer.Typer()
    plan_command.register(app, explain)
    result = CliRunner().invoke(app, ["recipes/x.yaml", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def shown(machine: Machine) -> str:
    out = io.StringIO()
    plan_command.show(make(), machine, console(out))
    return out.getvalue()


def test_a_plan_is_one_screen_with_memory_decisions_and_stages() -> None:
    output = run()
    assert "KV cache 90.0 MiB" in output
    assert "max_seq_len - 1" in output
    assert "assemble  would run: limits.max_batch_size 4 → 8" in output
    assert "compile   unchanged" in output
    assert "Next: scalellm-trt build recipes/x.yaml" in output
    assert len(output.splitlines()) <= 40


def test_json_is_the_whole_plan_and_nothing_else() -> None:
    assert run("--json") == to_json(make())
    assert json.loads(run("--json"))["name"] == "smollm2-cpu"


def test_output_in_a_pipe_is_plain_text() -> None:
    output = shown(MACHINE)
    assert "\x1b" not in output
    assert "─" not in output


def test_a_machine_that_is_busy_now_is_mentioned() -> None:
    assert "available right now" not in shown(MACHINE)
    assert "Only 256.0 MiB" in shown(dataclasses.replace(MACHINE, memory_available_bytes=GIB // 4))

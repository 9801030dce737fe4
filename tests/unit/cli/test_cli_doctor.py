from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import typer
from typer.testing import CliRunner

from scalellm_trt.cli import doctor as doctor_command
from scalellm_trt.doctor import Surroundings
from tests.fakes.planning import MACHINE

AROUND = Surroundings(
    machine=MACHINE,
    installed={"openvino": "2026.4.1", "numpy": "1.26.4", "gguf": "0.19.0",
               "tritonclient": "2.73.0"},
    tritonserver="/usr/bin/tritonserver (path)",
    tritonserver_problem=None,
    container_engine=None,
    ports={8000: None},
    repository=Path("triton_repo"),
    num_services=None,
    repository_problems=(),
)  # fmt: skip


def run(around: Surroundings, *arguments: str) -> tuple[int, str]:
    app = typer.Typer()
    doctor_command.register(app, lambda folder, repository, toolchain, in_container: around)
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.output


def test_a_healthy_machine_exits_0_with_a_line_per_check() -> None:
    code, output = run(AROUND)
    assert code == 0
    assert "tritonserver" in output
    assert "Example 9000, 2 usable of 4 cores, avx2 fma f16c" in output


def test_a_failure_exits_4_and_prints_the_fix() -> None:
    code, output = run(dataclasses.replace(AROUND, installed={}))
    assert code == 4
    assert "openvino: Install the toolchain: pip install 'scalellm-trt[cpu]'" in output


def test_json_has_every_check_and_the_exit_code() -> None:
    code, output = run(dataclasses.replace(AROUND, installed={}), "--json")
    body = json.loads(output)
    assert body["exit_code"] == code == 4
    assert {"name", "status", "found", "needed", "fix", "backend"} == set(body["checks"][0])

from __future__ import annotations

from typing import TYPE_CHECKING

from scalellm_trt.doctor import look
from scalellm_trt.doctor.surroundings import nvidia_driver

if TYPE_CHECKING:
    from pathlib import Path


def program(path: Path, script: str) -> str:
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def test_the_driver_version_is_the_first_line_that_nvidia_smi_prints(tmp_path: Path) -> None:
    assert nvidia_driver(program(tmp_path / "smi", "echo 590.44.01; echo 590.44.01")) == "590.44.01"


def test_no_nvidia_smi_or_a_failing_one_is_no_driver(tmp_path: Path) -> None:
    assert nvidia_driver(str(tmp_path / "nothing")) is None
    assert nvidia_driver(program(tmp_path / "smi", "echo no devices; exit 9")) is None


def test_looking_at_a_folder_without_repository_changes_nothing_in_it(tmp_path: Path) -> None:
    around = look(tmp_path / "builds", tmp_path / "triton_repo")
    assert around.num_services is None
    assert around.repository_problems == ()
    assert set(around.ports) == {8000, 8001, 8002}
    assert around.installed["numpy"] is not None
    assert list(tmp_path.iterdir()) == []


def test_a_stray_folder_in_the_repository_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "stray").mkdir()
    assert look(tmp_path, tmp_path).repository_problems

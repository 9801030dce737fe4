"""`scripts/quickstart` as a newcomer runs it, in a copy of the checkout that borrows its environment and downloads."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.integration.conftest import ROOT, new_workspace

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.integration
QUESTION = "What is the capital of France?"
ANSWER = "The capital of France is Paris."


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What a clone holds, with a link where the environment would be made."""
    directory = tmp_path_factory.mktemp("quickstart")
    for name in ("scalellm_trt", "scripts", "recipes"):
        shutil.copytree(ROOT / name, directory / name, ignore=shutil.ignore_patterns("__pycache__"))
    (directory / ".venv").symlink_to(sys.prefix)
    new_workspace(directory)
    yield directory
    shutil.rmtree(directory)


def _start(checkout: Path, question: str = QUESTION) -> subprocess.Popen[str]:
    argv = [str(checkout / "scripts" / "quickstart"), question]
    return subprocess.Popen(
        argv, cwd=checkout, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def _run(checkout: Path) -> subprocess.CompletedProcess[str]:
    process = _start(checkout)
    stdout, stderr = process.communicate(timeout=300)
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def _left_running(checkout: Path) -> list[str]:
    """Return the programs whose working directory is the checkout."""
    found = []
    for process in psutil.process_iter(["cwd", "name"]):
        if process.info["cwd"] == str(checkout):
            found.append(str(process.info["name"]))
    return found


def test_it_ends_with_an_answer_and_leaves_no_server(checkout: Path) -> None:
    done = _run(checkout)
    assert done.returncode == 0, done.stderr
    assert ANSWER in done.stdout
    assert "tokens/s" in done.stderr
    assert not _left_running(checkout)


def test_a_second_run_builds_nothing(checkout: Path) -> None:
    done = _run(checkout)
    assert done.returncode == 0, done.stderr
    assert "nothing changed, 0 stages run" in done.stdout
    assert ANSWER in done.stdout


def test_ctrl_c_in_the_middle_of_an_answer_leaves_no_server(checkout: Path) -> None:
    question = "Tell me a very long story."
    process = _start(checkout, question)
    assert process.stdout is not None
    for line in process.stdout:
        if question in line:
            break
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr.splitlines()[-1]) == (130, "interrupted")
    assert not _left_running(checkout)


def test_a_server_that_does_not_come_up_is_explained(checkout: Path) -> None:
    (checkout / "triton_repo" / "stray").mkdir()
    done = _run(checkout)
    (checkout / "triton_repo" / "stray").rmdir()
    assert done.returncode == 6
    assert "stray/ is not a model" in done.stderr
    assert not _left_running(checkout)

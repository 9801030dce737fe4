"""waiting: a child's exit status, by its descriptor and, where there is none, as Popen waits."""

from __future__ import annotations

import os
import subprocess
import time
from typing import NoReturn

import pytest

from scalellm_trt.process.waiting import wait


def sleeping(seconds: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", seconds])


def has_no_descriptors(pid: int) -> NoReturn:
    raise OSError(f"no descriptor of {pid}")


@pytest.fixture(params=["descriptor", "none"])
def _kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "none":
        monkeypatch.setattr(os, "pidfd_open", has_no_descriptors)


@pytest.mark.usefixtures("_kernel")
def test_the_exit_status_is_returned() -> None:
    with subprocess.Popen(["sh", "-c", "sleep 0.02; exit 3"]) as child:
        assert wait(child, 20) == 3
        assert wait(child, 0) == 3
    with subprocess.Popen(["sh", "-c", "kill -9 $$"]) as child:
        assert wait(child, None) == -9


@pytest.mark.usefixtures("_kernel")
def test_a_child_that_runs_on_is_left_alone() -> None:
    with sleeping("60") as child:
        with pytest.raises(subprocess.TimeoutExpired):
            wait(child, 0.01)
        assert child.poll() is None
        child.kill()


def test_the_kernel_wakes_us(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail(f"slept {seconds} s"))
    with sleeping("0.02") as child:
        assert wait(child, 20) == 0

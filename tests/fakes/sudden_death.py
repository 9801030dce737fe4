"""End a process at a chosen step, as kill -9 does: no handler, no `finally`, no flush."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from scalellm_trt.artefacts.publish import Trace


def steps_of(action: Callable[[Trace], object]) -> list[str]:
    """Run `action` to its end and return the names of its steps."""
    steps: list[str] = []
    action(steps.append)
    return steps


def run_killed_at(step_index: int, action: Callable[[Trace], object]) -> bool:
    """Run `action` in a child that is killed just before its step of that index; return whether it got there."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            action(_killer(step_index))
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0, "the child failed by itself"
    return False


def _killer(step_index: int) -> Trace:
    seen = iter(range(step_index))

    def trace(step: str) -> None:
        if next(seen, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)

    return trace

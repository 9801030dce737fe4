"""The one way to start a program: echo it, stream its output to a log, bound it, and say what went wrong."""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import signal
import subprocess
import time
from collections import deque
from typing import TYPE_CHECKING

from scalellm_trt.errors import StageError, ToolchainError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

logger = logging.getLogger(__name__)

NUM_TAIL_LINES = 20
STOP_GRACE_S = 5.0


def start(argv: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start `argv` in a process group of its own, with stdout and stderr appended to `log`.

    Args:
        argv: the program and its arguments; no shell is involved.
        log: created with its folder where missing; the command itself is its next line.
        env: the whole environment of the child; None inherits ours.

    Raises:
        ToolchainError: the program is not there or cannot be executed.
    """
    command = shlex.join(argv)
    logger.info("$ %s", command)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        output.write(f"$ {command}\n".encode())
        output.flush()
        try:
            return subprocess.Popen(
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=None if env is None else dict(env),
                start_new_session=True,
            )
        except OSError as error:
            message = f"{argv[0]} cannot be started: {error.strerror or error}"
            raise ToolchainError(message, hint=f"The command was: {command}") from error


def run(
    argv: Sequence[str], *, log: Path, timeout_s: float | None = None, env: Mapping[str, str] | None = None
) -> None:
    """Run `argv` to its end; an interrupt or the time limit stops its whole process group.

    Raises:
        ToolchainError: the program cannot be started.
        StageError: it failed, was killed or took longer than `timeout_s`; with its last lines and the log's path.
    """
    child = start(argv, log=log, env=env)
    try:
        code = child.wait(timeout=timeout_s)
    except subprocess.TimeoutExpired as error:
        stop(child)
        raise StageError(_failure(argv, f"did not end within {timeout_s:g} s", log), hint=f"Log: {log}") from error
    except BaseException:
        stop(child)
        raise
    if code != 0:
        ended = f"exit code {code}" if code > 0 else f"killed by {signal.Signals(-code).name}"
        raise StageError(_failure(argv, ended, log), hint=f"Log: {log}")


def stop(child: subprocess.Popen[bytes], *, grace_s: float = STOP_GRACE_S) -> int:
    """Stop a child made by `start` and everything in its group: SIGTERM, then SIGKILL after `grace_s`.

    Returns:
        The child's exit status as `Popen.returncode` gives it.
    """
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(timeout=grace_s)
    # Grandchildren outlive a leader that ended by itself, so the group is killed in any case.
    deadline = time.monotonic() + grace_s
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < deadline:
            os.killpg(child.pid, signal.SIGKILL)
            child.poll()
            time.sleep(0.01)
    return child.wait()


def tail(log: Path, num_lines: int = NUM_TAIL_LINES) -> list[str]:
    """Return the last lines of a log; empty when there is none."""
    try:
        with log.open(encoding="utf-8", errors="replace") as lines:
            return [line.rstrip("\n") for line in deque(lines, maxlen=num_lines)]
    except OSError:
        return []


def _failure(argv: Sequence[str], ended: str, log: Path) -> str:
    lines = "".join(f"\n  | {line}" for line in tail(log))
    return f"{shlex.join(argv)}: {ended}{lines}"

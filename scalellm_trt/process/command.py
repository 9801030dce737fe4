"""An argv in; its output in a log, its life bounded by ours, and an error that says how it ended."""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import signal
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from scalellm_trt.errors import StageError, ToolchainError
from scalellm_trt.process import waiting, watchdog

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """A sign of life of a running command.

    Attributes:
        elapsed_s: since it was started.
        rss_bytes: resident memory of its process and of all that it started; shared pages count for each.
    """

    elapsed_s: float
    rss_bytes: int


class CommandFailedError(StageError):
    """A command ended badly.

    Attributes:
        returncode: as `Popen.returncode` gives it: negative for a signal.
        lines: the last lines of its log.
    """

    def __init__(self, message: str, *, returncode: int, lines: Sequence[str], log: Path) -> None:
        """Keep what a caller needs to find the cause."""
        super().__init__(message, hint=f"Log: {log}")
        self.returncode = returncode
        self.lines = tuple(lines)
        self.log = log


def run(
    argv: Sequence[str],
    *,
    log: Path,
    timeout_s: float | None = None,
    env: Mapping[str, str] | None = None,
    on_beat: Callable[[Beat], None] | None = None,
    beat_s: float = 5.0,
) -> None:
    """Run `argv` to its end; an interrupt, the time limit or our own death by kill -9 ends its whole process group.

    Args:
        argv: the program and its arguments.
        log: gets the command and its output.
        timeout_s: how long it may take.
        env: the whole environment of the child; None inherits ours.
        on_beat: called every `beat_s` seconds while it runs; what it raises stops the command.
        beat_s: seconds between two calls.

    Raises:
        ToolchainError: the program cannot be started.
        StageError: it took longer than `timeout_s`.
        CommandFailedError: it failed or was killed; with its last lines and the log's path.
    """
    child = start(argv, log=log, env=env)
    try:
        guard = guarded(child)
    except BaseException:
        stop(child)
        raise
    try:
        code = _wait(child, timeout_s, on_beat, beat_s)
    except subprocess.TimeoutExpired as error:
        stop(child)
        lines = tail(log)
        raise StageError(_failure(argv, f"did not end within {timeout_s:g} s", lines), hint=f"Log: {log}") from error
    except BaseException:
        stop(child)
        raise
    finally:
        guard.kill()
        guard.wait()
    if code != 0:
        ended = f"exit code {code}" if code > 0 else f"killed by {signal.Signals(-code).name}"
        lines = tail(log)
        raise CommandFailedError(_failure(argv, ended, lines), returncode=code, lines=lines, log=log)


def guarded(child: subprocess.Popen[bytes], *, grace_s: float = STOP_GRACE_S) -> subprocess.Popen[bytes]:
    """Start a watchdog that ends the group of `child` should this process end first, in whatever way."""
    argv = [sys.executable, "-I", "-S", watchdog.__file__, str(os.getpid()), str(child.pid), str(grace_s)]
    return start(argv, log=Path(os.devnull))


def output(argv: Sequence[str], *, timeout_s: float) -> str:
    """Return what a short command prints on stdout.

    Raises:
        ToolchainError: the program cannot be started.
        StageError: it failed, or took longer than `timeout_s`.
    """
    command = shlex.join(argv)
    logger.info("$ %s", command)
    try:
        done = subprocess.run(list(argv), stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_s, check=False)
    except OSError as error:
        message = f"{argv[0]} cannot be started: {error.strerror or error}"
        raise ToolchainError(message, hint=f"The command was: {command}") from error
    except subprocess.TimeoutExpired as error:
        message = f"{command}: did not end within {timeout_s:g} s"
        raise StageError(message) from error
    if done.returncode != 0:
        lines = done.stderr.decode(errors="replace").splitlines()[-NUM_TAIL_LINES:]
        raise StageError(_failure(argv, f"exit code {done.returncode}", lines))
    return done.stdout.decode(errors="replace")


def stop(child: subprocess.Popen[bytes], *, grace_s: float = STOP_GRACE_S) -> int:
    """Stop a child made by `start` and everything in its group: SIGTERM, then SIGKILL after `grace_s`.

    Returns:
        The child's exit status as `Popen.returncode` gives it.
    """
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        waiting.wait(child, grace_s)
    # Grandchildren outlive a leader that ended by itself, so the group is killed in any case.
    deadline = time.monotonic() + grace_s
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < deadline:
            os.killpg(child.pid, signal.SIGKILL)
            child.poll()
            if not watchdog.has_living_members(child.pid):
                break
            time.sleep(0.01)
    return child.wait()


def tail(log: Path, num_lines: int = NUM_TAIL_LINES) -> list[str]:
    """Return the last lines of a log; empty when there is none."""
    try:
        with log.open(encoding="utf-8", errors="replace") as lines:
            return [line.rstrip("\n") for line in deque(lines, maxlen=num_lines)]
    except OSError:
        return []


def _wait(
    child: subprocess.Popen[bytes], timeout_s: float | None, on_beat: Callable[[Beat], None] | None, beat_s: float
) -> int:
    """Return the exit code; TimeoutExpired once the time is over."""
    if on_beat is None:
        return waiting.wait(child, timeout_s)
    started = time.monotonic()
    while True:
        left_s = None if timeout_s is None else timeout_s - (time.monotonic() - started)
        try:
            return waiting.wait(child, beat_s if left_s is None else max(0.0, min(beat_s, left_s)))
        except subprocess.TimeoutExpired:
            elapsed_s = time.monotonic() - started
            if timeout_s is not None and elapsed_s >= timeout_s:
                raise
            on_beat(Beat(elapsed_s=elapsed_s, rss_bytes=_resident_bytes(child.pid)))


def _resident_bytes(pid: int) -> int:
    """Add up the resident memory of a process and its descendants; those that end meanwhile count as nothing."""
    import psutil

    total = 0
    with contextlib.suppress(psutil.Error):
        leader = psutil.Process(pid)
        for member in [leader, *leader.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                total += member.memory_info().rss
    return total


def _failure(argv: Sequence[str], ended: str, last_lines: Sequence[str]) -> str:
    lines = "".join(f"\n  | {line}" for line in last_lines)
    return f"{shlex.join(argv)}: {ended}{lines}"

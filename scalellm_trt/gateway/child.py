"""A gateway as a child process: started, waited for, watched, stopped so that its answers end first."""

from __future__ import annotations

import re
import signal
import sys
import time
from typing import TYPE_CHECKING, Final

from scalellm_trt import process
from scalellm_trt.errors import (
    ArtefactError,
    Problem,
    RecipeError,
    ScaleLLMError,
    ServerNotReadyError,
    StageError,
    ToolchainError,
)
from scalellm_trt.process.command import guarded

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

POLL_S: Final = 0.05
_ANNOUNCED: Final = re.compile(r"^gateway: (https?://\S+)/v1 offers ", re.MULTILINE)
_PAGE: Final = re.compile(r"^  page: (https?://\S+)$", re.MULTILINE)
_ERRORS: Final[Mapping[int, type[StageError | ToolchainError | ArtefactError | ServerNotReadyError]]] = {
    error.exit_code: error for error in (StageError, ToolchainError, ArtefactError, ServerNotReadyError)
}


def start(options: Sequence[str], *, log: Path, stop_timeout_s: float) -> RunningGateway:
    """Start `scalellm-trt gateway OPTIONS` with its output in `log`; what an earlier one wrote is kept as `LOG.1`.

    A watchdog ends it should this process end without `stop`, by kill -9 too.
    """
    if log.exists():
        log.replace(log.with_name(f"{log.name}.1"))
    child = process.start([sys.executable, "-m", "scalellm_trt", "gateway", *options], log=log)
    try:
        guard = guarded(child, grace_s=stop_timeout_s)
    except BaseException:
        process.stop(child)
        raise
    return RunningGateway(child, guard, log, stop_timeout_s)


class RunningGateway:
    """A started gateway; leaving the context stops it.

    Attributes:
        log: what it prints.
        page: the URL of the operator's page, known once it is ready; None where there is none.
    """

    def __init__(
        self, child: subprocess.Popen[bytes], guard: subprocess.Popen[bytes], log: Path, stop_timeout_s: float
    ) -> None:
        """Take over a started child and its watchdog."""
        self._child, self._guard, self._stop_timeout_s = child, guard, stop_timeout_s
        self.log = log
        self.page: str | None = None

    @property
    def pid(self) -> int:
        """The gateway's process id, which is its process group's too."""
        return self._child.pid

    def wait_ready(self, timeout_s: float) -> str:
        """Return its URL once it takes connections.

        Raises:
            ScaleLLMError: it ended, or is not there in time; it is stopped then.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            self.check()
            text = self.log.read_text(encoding="utf-8", errors="replace")
            found, page = _ANNOUNCED.search(text), _PAGE.search(text)
            if found is not None:
                self.page = None if page is None else page[1]
                return found[1]
            if time.monotonic() > deadline:
                self.stop()
                message = f"the gateway was not ready within {timeout_s:g} s"
                raise ServerNotReadyError(message, hint=f"Log: {self.log}")
            time.sleep(POLL_S)

    def check(self) -> None:
        """Return while it runs.

        Raises:
            ScaleLLMError: it has ended; with its exit code and its last lines.
        """
        code = self._child.poll()
        if code is not None:
            raise _failure(code, process.tail(self.log, 8), self.log)

    def stop(self) -> None:
        """Let open answers end, then end it; a second interrupt meanwhile ends it at once."""
        try:
            process.stop(self._child, grace_s=self._stop_timeout_s)
        except BaseException:
            self._child.kill()
            self._child.wait()
            raise
        finally:
            self._guard.kill()
            self._guard.wait()

    def __enter__(self) -> RunningGateway:
        """Return the gateway."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it."""
        self.stop()


def _failure(code: int, lines: Sequence[str], log: Path) -> ScaleLLMError:
    """Return the error whose exit code is the gateway's own; a crash is a server that is not there."""
    ended = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    message = f"the gateway {ended}" + "".join(f"\n  | {line}" for line in lines)
    hint = f"Log: {log}"
    if code == RecipeError.exit_code:
        return RecipeError([Problem(message=message, hint=hint)])
    return _ERRORS.get(code, ServerNotReadyError)(message, hint=hint)

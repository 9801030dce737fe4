"""A tritonserver that is killed, stopped, cut off or restarted, and is there again."""

from __future__ import annotations

import contextlib
import os
import signal
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import psutil

from scripts.benchmarks.sides import served_model
from tests.fakes.wires import Wire

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Harm = Literal["kill", "stop", "hole", "restart", "none"]


@dataclass(slots=True)
class Server:
    """One tritonserver, behind a wire that keeps its address."""

    repository: Path
    log: Path
    verify: Callable[[Path], None]
    wire: Wire | None = None
    running: served_model.Running | None = None
    stack: ExitStack = field(default_factory=ExitStack)

    def start(self) -> None:
        """Start it, or start it again."""
        self.stack = ExitStack()
        self.running = self.stack.enter_context(served_model.running(self.repository, self.log, self.verify))
        if self.wire is None:
            self.wire = Wire(self.running.url)
        self.wire.retarget(self.running.url)
        self.wire.mend()

    @property
    def url(self) -> str:
        """Where the gateway finds it, whichever process it is."""
        assert self.wire is not None
        return self.wire.url

    def stop(self) -> None:
        """End it for good."""
        self.stack.close()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the server and its children."""
        assert self.running is not None
        for process in served_model.process_tree(self.running.pid):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def harm(self, harm: Harm) -> None:
        """Break it."""
        assert self.running is not None
        assert self.wire is not None
        if harm == "kill":
            self.signal(signal.SIGKILL)
        elif harm == "stop":
            self.signal(signal.SIGSTOP)
        elif harm == "hole":
            self.wire.hold()
        elif harm == "restart":
            os.kill(self.running.pid, signal.SIGTERM)

    def recover(self, harm: Harm) -> None:
        """Let it be there again, as it was or as a new process."""
        assert self.wire is not None
        if harm == "none":
            return
        if harm == "hole":
            self.wire.mend()
            return
        self.wire.cut()
        if harm != "restart":
            self.signal(signal.SIGKILL)
        with contextlib.suppress(Exception):
            self.stack.close()
        self.start()

"""The client processes of one target: started together, told what to do, heard through one queue."""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

from scalellm_trt.bench.load import exchange
from scalellm_trt.errors import StageError
from scalellm_trt.triton import binary

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scalellm_trt.bench.load.exchange import Setup

READY_TIMEOUT_S: Final = 300.0
END_TIMEOUT_S: Final = 5.0
MODULE: Final = "scalellm_trt.bench.load.client_process"
_SOURCE_ROOT = Path(__file__).parents[3]


class Crew:
    """Processes that ask one target.

    Attributes:
        heard: (process, message); the message is None once the process has ended.
    """

    def __init__(self, setup: Setup, count: int) -> None:
        """Start the processes and wait until each can begin; leaving the context ends them.

        Raises:
            StageError: one did not come up; says what it wrote last.
        """
        self.heard: queue.Queue[tuple[int, object | None]] = queue.Queue()
        self._setup = setup
        self._processes: list[subprocess.Popen[bytes]] = []
        self._errors: list[list[str]] = []
        self.grow(count)

    @property
    def size(self) -> int:
        """Return how many processes there are."""
        return len(self._processes)

    def grow(self, count: int) -> None:
        """Have at least `count` processes.

        Raises:
            StageError: a new one did not come up.
        """
        new = range(len(self._processes), count)
        try:
            for number in new:
                self._start(number)
            for _ in new:
                number, message = self.heard.get(timeout=READY_TIMEOUT_S)
                if not isinstance(message, exchange.Ready):
                    raise self.failure(number, message)
        except queue.Empty as error:
            self.close()
            message = f"target {self._setup.way.name}: no client process after {READY_TIMEOUT_S:.0f} s"
            raise StageError(message) from error
        except BaseException:
            self.close()
            raise

    def tell(self, number: int, message: object) -> None:
        """Send a message to a process; one that has ended is heard of by the queue."""
        file = self._processes[number].stdin
        assert file is not None
        try:
            exchange.send(file, message)  # type: ignore[arg-type]  # a pipe of bytes
        except (BrokenPipeError, ValueError):
            return

    def tell_all(self, message: object, numbers: Sequence[int] | None = None) -> None:
        """Send a message to all processes, or to these."""
        for number in range(self.size) if numbers is None else numbers:
            self.tell(number, message)

    def failure(self, number: int, message: object | None) -> StageError:
        """Return the error for a process that said `message` instead of what it should."""
        if isinstance(message, exchange.Broken):
            return StageError(f"target {self._setup.way.name}: {message.message}")
        ending = "\n  | ".join(self._errors[number][-15:])
        return StageError(f"a client process of target {self._setup.way.name} ended by itself:\n  | {ending}")

    def close(self) -> None:
        """End the processes: by the end of their orders, which they obey at once, else by force."""
        for process in self._processes:
            if process.stdin is not None:
                with contextlib.suppress(OSError):
                    process.stdin.close()
        for process in self._processes:
            try:
                process.wait(END_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def __enter__(self) -> Crew:
        """Return it."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the processes."""
        self.close()

    def _start(self, number: int) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(_SOURCE_ROOT), *_given_path()])}
        if self._setup.way.kind == "in-process":
            environment = binary.with_huge_pages(environment)  # as the server has them
        process = subprocess.Popen(
            [sys.executable, "-m", MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,  # an interrupt from the terminal is for the runner alone
        )
        self._processes.append(process)
        self._errors.append([])
        for target in (self._listen, self._keep_errors):
            threading.Thread(target=target, args=(number, process), daemon=True).start()
        self.tell(number, self._setup)

    def _listen(self, number: int, process: subprocess.Popen[bytes]) -> None:
        message: object | None = True
        while message is not None:
            assert process.stdout is not None
            message = exchange.receive(process.stdout)  # type: ignore[arg-type]
            self.heard.put((number, message))

    def _keep_errors(self, number: int, process: subprocess.Popen[bytes]) -> None:
        assert process.stderr is not None
        for line in process.stderr:
            self._errors[number] = [*self._errors[number][-50:], line.decode("utf-8", "replace").rstrip()]


def _given_path() -> list[str]:
    path = os.environ.get("PYTHONPATH")
    return [path] if path else []

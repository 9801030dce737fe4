"""A process that answers questions, one JSON line each: how a benchmark keeps its sides apart.

Standard library only: the worker may run in an interpreter of another environment.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[3]


class WorkerError(Exception):
    """A worker ended; the message holds the end of its log."""


class Worker:
    """The asking end. Leaving the context ends the process."""

    def __init__(self, python: str, module: str, arguments: list[str], log: Path) -> None:
        """Start `python -m module` and wait until it is ready; what it prints goes to `log`."""
        self._name = module.rpartition(".")[2]
        self._log = log
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [python, "-m", module, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                text=True,
                cwd=ROOT,
                env=environment,
            )
        self.pid = self._process.pid
        self.description: dict[str, Any] = self._answer()

    def ask(self, **question: object) -> dict[str, Any]:
        """Return the worker's answer.

        Raises:
            WorkerError: it ended instead.
        """
        assert self._process.stdin is not None
        try:
            print(json.dumps(question), file=self._process.stdin, flush=True)
        except BrokenPipeError:
            raise self._failure() from None
        return self._answer()

    def __enter__(self) -> Worker:
        """Return the worker."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the process and wait for it."""
        self._process.kill()
        self._process.communicate()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._failure()
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _failure(self) -> WorkerError:
        self._process.kill()
        self._process.wait()
        ending = "\n  | ".join(self._log.read_text(errors="replace").splitlines()[-15:])
        return WorkerError(f"{self._name} ended; {self._log} ends:\n  | {ending}")


def answer_questions(description: dict[str, object], answer: Callable[[dict[str, Any]], dict[str, object]]) -> None:
    """Be the answering end until standard input is closed; libraries that print do it on standard error."""
    with os.fdopen(os.dup(1), "w") as replies:
        os.dup2(2, 1)
        print(json.dumps(description), file=replies, flush=True)
        for line in sys.stdin:
            cpu_before = time.process_time()
            reply = answer(json.loads(line))
            print(json.dumps({**reply, "cpu_s": time.process_time() - cpu_before}), file=replies, flush=True)

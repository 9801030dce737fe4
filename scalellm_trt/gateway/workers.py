"""Several processes that do the same work: started, watched, started again when they crash, ended with their parent.

Forked and not started anew: what the parent has read (tokenizers, templates) is shared, and a new worker is there
within milliseconds. The parent must have neither threads nor an event loop nor gRPC.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from scalellm_trt.errors import StageError
from scalellm_trt.gateway import request_log
from scalellm_trt.gateway.hangup import SETTLE_S, Hangup

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    Ready = Callable[[], object]
    Work = Callable[[int, Ready], None]
    """Called in the worker with its number, and what to call once it takes requests; returns when told to stop."""

POLL_S: Final = 0.1
FIRST_BACKOFF_S: Final = 0.1
MAX_BACKOFF_S: Final = 10.0
STEADY_S: Final = 10.0
"""A worker that lived so long was well: the next crash is a first one."""
KILL_GRACE_S: Final = 5.0
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(slots=True, kw_only=True)
class _Worker:
    index: int
    pid: int | None = None
    started_s: float = 0.0
    backoff_s: float = FIRST_BACKOFF_S
    restart_s: float = field(default=0.0)


class Workers:
    """The parent's side."""

    def __init__(
        self,
        num_workers: int,
        work: Work,
        *,
        stop_timeout_s: float,
        on_end: Callable[[int], None],
        on_hangup: Callable[[], None],
    ) -> None:
        """Prepare; nothing is started.

        Args:
            num_workers: how many.
            work: what each does.
            stop_timeout_s: how long one may take to stop.
            on_end: called with the number of a worker that has ended.
            on_hangup: called after SIGHUP, unless that says that the terminal is gone: then all end.
        """
        self._workers = [_Worker(index=index) for index in range(num_workers)]
        self._work, self._stop_timeout_s, self._on_end = work, stop_timeout_s, on_end
        self._on_hangup = on_hangup
        self._num_stops = 0
        self._hangup, self._hung_up_s = Hangup(), float("inf")
        self._alive = os.pipe()
        self._ready = os.pipe()

    def run(self, on_ready: Callable[[], None]) -> None:
        """Keep the workers running until SIGINT, SIGTERM or a closed terminal; a second signal kills what is left.

        Raises:
            StageError: a worker ended before all were ready; all are ended then.
        """
        before = {number: signal.signal(number, self._note_stop) for number in _SIGNALS}
        try:
            for worker in self._workers:
                self._start(worker)
            self._wait_ready()
            if not self._num_stops:
                on_ready()
            while not self._num_stops:
                self._watch()
                self._hear_hangup()
                time.sleep(POLL_S)
        finally:
            self._stop()
            for number, handler in before.items():
                signal.signal(number, handler)
            for descriptor in (*self._alive, *self._ready):
                os.close(descriptor)

    def _note_stop(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP and not self._num_stops:
            self._hung_up_s = time.monotonic()
        else:
            self._num_stops += 1

    def _hear_hangup(self) -> None:
        if time.monotonic() < self._hung_up_s + SETTLE_S:
            return
        self._hung_up_s = float("inf")
        if self._hangup.is_end:
            self._num_stops += 1
        else:
            self._on_hangup()

    def _start(self, worker: _Worker) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        worker.started_s = time.monotonic()
        # A signal that the new process got before it has its own handlers would be noted there, and lost.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        worker.pid = os.fork()
        if not worker.pid:
            self._be(worker.index)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)

    def _be(self, index: int) -> None:
        """Be a worker, to the end of this process."""
        code = 1
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.default_int_handler)
            # A closed terminal is the parent's to hear.
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            os.close(self._alive[1])
            threading.Thread(target=_end_with_parent, args=(self._alive[0],), daemon=True).start()
            self._work(index, lambda: os.write(self._ready[1], b"."))
            code = 0
        except KeyboardInterrupt:
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _wait_ready(self) -> None:
        num_ready = 0
        while num_ready < len(self._workers) and not self._num_stops:
            if select.select([self._ready[0]], [], [], POLL_S)[0]:
                num_ready += len(os.read(self._ready[0], len(self._workers)))
            for worker in self._workers:
                if (ended := self._reap(worker)) is not None and not self._num_stops:
                    message = f"a worker of the gateway {ended} before it was ready"
                    raise StageError(message, hint="Its message is above.")

    def _watch(self) -> None:
        """Start again what has ended, the sooner the longer it lived."""
        now_s = time.monotonic()
        for worker in self._workers:
            if worker.pid is None and now_s >= worker.restart_s:
                self._start(worker)
            elif (ended := self._reap(worker)) is not None:
                if now_s - worker.started_s > STEADY_S:
                    worker.backoff_s = FIRST_BACKOFF_S
                fields = {"worker": worker.index, "reason": ended, "again_in_s": worker.backoff_s}
                request_log.LOGGER.error("a worker ended", extra={"fields": fields})
                worker.restart_s = now_s + worker.backoff_s
                worker.backoff_s = min(worker.backoff_s * 2, MAX_BACKOFF_S)

    def _reap(self, worker: _Worker) -> str | None:
        """Return how the worker ended, if it has just now."""
        if worker.pid is None:
            return None
        pid, status = os.waitpid(worker.pid, os.WNOHANG)
        if not pid:
            return None
        worker.pid = None
        self._on_end(worker.index)
        code = os.waitstatus_to_exitcode(status)
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"

    def _stop(self) -> None:
        """End all workers, and wait for it."""
        self._signal(signal.SIGTERM)
        deadline_s = time.monotonic() + self._stop_timeout_s + KILL_GRACE_S
        while any(worker.pid is not None for worker in self._workers):
            if self._num_stops > 1 or time.monotonic() > deadline_s:
                self._signal(signal.SIGKILL)
            for worker in self._workers:
                self._reap(worker)
            time.sleep(POLL_S / 10)

    def _signal(self, number: signal.Signals) -> None:
        for worker in self._workers:
            if worker.pid is not None:
                os.kill(worker.pid, number)


def _end_with_parent(alive: int) -> None:
    """Stop this worker when the parent is gone, in whatever way: then nobody holds the pipe's other end."""
    os.read(alive, 1)
    os.kill(os.getpid(), signal.SIGTERM)

"""One cell: warm-up, then its requests; what comes of each goes to a sink as it comes."""

from __future__ import annotations

import dataclasses
import itertools
import queue
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from scalellm_trt.bench.load import cell_plan, exchange, health
from scalellm_trt.bench.load.schedule import due_times_s

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from scalellm_trt.bench.load.cell_plan import Effort
    from scalellm_trt.bench.load.crew import Crew
    from scalellm_trt.bench.load.exchange import Asked, Job
    from scalellm_trt.bench.load.job_source import JobSource
    from scalellm_trt.bench.run import ClientHealth, Load

POLL_S: Final = 0.2
AHEAD_S: Final = 3.0
"""How long before it is due a request of an open loop lies ready."""
SPARE_JOBS: Final = 2
"""Jobs that a stream has ahead of it, so that it never waits for one."""
FAILURES_IN_A_ROW: Final = 8
"""After so many, and at least one for each stream, a target is not asked further: each may take the whole timeout."""
FIRST_FAILURES: Final = 3
"""The same, of a target that has never answered."""
CANCEL_TIMEOUT_S: Final = 5.0
START_S: Final = 0.05


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What a cell came to.

    Attributes:
        begin_s, end_s: of measuring, by the machine's clock.
        gave_up: the target failed too often.
    """

    begin_s: float = 0.0
    end_s: float = 0.0
    gave_up: bool = False
    is_complete: bool = False
    shares: list[float] = field(default_factory=list)
    lags_s: list[tuple[float, ...]] = field(default_factory=list)
    send_delays_s: list[float] = field(default_factory=list)

    @property
    def health(self) -> ClientHealth:
        """Return how the client kept up."""
        return health.merged(self.shares, self.lags_s, self.send_delays_s)


class CellRun:
    """Runs a cell; `outcome` can be read at any time, also after an interrupt."""

    def __init__(
        self,
        crew: Crew,
        jobs: JobSource,
        load: Load,
        effort: Effort,
        *,
        num_processes: int,
        timeout_s: float,
        seed: int,
        has_answered: bool,
        take: Callable[[Asked], bool],
    ) -> None:
        """Take who asks what; `take` takes a request that is over and says whether it was answered.

        `has_answered` tells whether the target ever did before.
        """
        self._has_answered = has_answered
        self._crew, self._jobs, self._load, self._effort = crew, jobs, load, effort
        self._num_processes, self._timeout_s, self._seed, self._take = num_processes, timeout_s, seed, take
        self.outcome = Outcome()
        self._failures = 0
        self._working: set[int] = set()

    def run(self) -> None:
        """Warm up, then measure.

        Raises:
            StageError: a client process ended by itself.
        """
        if self._effort.num_warmup:
            self._warm_up()
        if self.outcome.gave_up:
            self.outcome.begin_s = self.outcome.end_s = time.monotonic()
            return
        self.outcome.begin_s = self.outcome.end_s = time.monotonic()
        if self._load.mode == "closed":
            self._run_closed()
        else:
            self._run_open()
        self.outcome.is_complete = not self.outcome.gave_up

    def cancel(self) -> None:
        """Give up what runs, and take what is told of it; for an interrupt."""
        self._crew.tell_all(exchange.GiveUp(), sorted(self._working))
        deadline_s = time.monotonic() + CANCEL_TIMEOUT_S
        while self._working and time.monotonic() < deadline_s:
            self._hear(POLL_S)

    def _warm_up(self) -> None:
        count = self._effort.num_warmup
        width = min(count, self._load.concurrency or count)
        self._begin(cell_plan.shares(width, min(self._num_processes, width)))
        for index in range(count):
            self._crew.tell(index % len(self._working), self._jobs.job(index, is_warmup=True))
        self._crew.tell_all(exchange.NoMore(), sorted(self._working))
        while self._working:
            self._hear(POLL_S)
        self.outcome.shares, self.outcome.lags_s, self.outcome.send_delays_s = [], [], []

    def _run_closed(self) -> None:
        assert self._load.concurrency is not None
        total = cell_plan.num_requests(self._effort, self._load)
        numbers: Iterator[int] = itertools.count() if total is None else iter(range(total))
        streams = cell_plan.shares(self._load.concurrency, self._num_processes)
        ended: set[int] = set()
        # Made before the clock starts.
        ready = [(p, self._make(numbers)) for _ in range(SPARE_JOBS) for p, n in enumerate(streams) for _ in range(n)]
        self._begin(streams)
        self.outcome.begin_s = self.outcome.end_s = time.monotonic()
        until_s = None if self._effort.duration_s is None else self.outcome.begin_s + self._effort.duration_s
        for number, job in ready:
            if job is not None:
                self._crew.tell(number, job)
        if any(job is None for _, job in ready):
            ended = self._working.copy()
            self._crew.tell_all(exchange.NoMore(), sorted(ended))
        while self._working:
            process = self._hear(POLL_S)
            is_over = until_s is not None and time.monotonic() >= until_s
            if is_over and len(ended) < len(streams):
                left = [each for each in range(len(streams)) if each not in ended]
                self._crew.tell_all(exchange.NoMore(drops_waiting=True), left)
                ended |= set(range(len(streams)))
            if process is None or process in ended:
                continue
            job = self._make(numbers)
            if job is None:
                self._crew.tell(process, exchange.NoMore())
                ended.add(process)
            else:
                self._crew.tell(process, job)

    def _run_open(self) -> None:
        assert self._load.rate_per_s is not None
        count = cell_plan.num_requests(self._effort, self._load)
        offsets = due_times_s(
            self._load.mode, self._load.rate_per_s, self._seed, count=count, duration_s=self._effort.duration_s
        )
        due = enumerate(offsets)
        waiting = next(due, None)
        first: list[Job] = []
        while waiting is not None and waiting[1] <= AHEAD_S:
            first.append(self._jobs.job(waiting[0], is_warmup=False, due_s=waiting[1]))
            waiting = next(due, None)
        self._begin([None] * self._num_processes)
        zero_s = time.monotonic() + START_S
        self.outcome.begin_s = self.outcome.end_s = zero_s
        for job in first:
            self._crew.tell(job.index % self._num_processes, _due_from(job, zero_s))
        while waiting is not None and self._working and not self.outcome.gave_up:
            index, offset_s = waiting
            if zero_s + offset_s - time.monotonic() > AHEAD_S:
                self._hear(POLL_S)
                continue
            job = self._jobs.job(index, is_warmup=False, due_s=zero_s + offset_s)
            self._crew.tell(index % self._num_processes, job)
            waiting = next(due, None)
        self._crew.tell_all(exchange.NoMore(), sorted(self._working))
        while self._working:
            self._hear(POLL_S)

    def _make(self, numbers: Iterator[int]) -> Job | None:
        index = next(numbers, None)
        return None if index is None or self.outcome.gave_up else self._jobs.job(index, is_warmup=False)

    def _begin(self, streams: Sequence[int | None]) -> None:
        for number, concurrency in enumerate(streams):
            self._crew.tell(number, exchange.Begin(concurrency=concurrency, timeout_s=self._timeout_s))
            self._working.add(number)

    def _hear(self, timeout_s: float) -> int | None:
        """Take one message; return the process that has room for another job, if it was about that.

        Raises:
            StageError: a process ended, or cannot go on.
        """
        try:
            process, message = self._crew.heard.get(timeout=timeout_s)
        except queue.Empty:
            return None
        if isinstance(message, exchange.Ended):
            self._working.discard(process)
            self.outcome.shares.append(message.cpu_share)
            self.outcome.lags_s.append(message.lags_s)
            return None
        if not isinstance(message, exchange.Asked):
            raise self._crew.failure(process, message)
        self._count(message)
        return process if message.is_last_turn else None

    def _count(self, asked: Asked) -> None:
        is_answered = self._take(asked)
        self.outcome.end_s = max(self.outcome.end_s, asked.raw.end_s)
        self.outcome.send_delays_s.append(asked.raw.sent_s - asked.due_s)
        self._has_answered |= is_answered
        self._failures = 0 if is_answered or asked.raw.was_cancelled else self._failures + 1
        limit = FAILURES_IN_A_ROW if self._has_answered else FIRST_FAILURES
        if self._failures >= max(limit, self._load.concurrency or 0) and not self.outcome.gave_up:
            self.outcome.gave_up = True
            self._crew.tell_all(exchange.GiveUp(), sorted(self._working))


def _due_from(job: Job, zero_s: float) -> Job:
    """Return a job whose time counted from 0 as one of the machine's clock."""
    return dataclasses.replace(job, due_s=(job.due_s or 0.0) + zero_s)

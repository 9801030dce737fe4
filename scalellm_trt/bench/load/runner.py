"""A run: every cell in its order, each request written down as it comes, the description rewritten after each cell."""

from __future__ import annotations

import contextlib
import datetime
import math
import secrets
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from scalellm_trt.bench import records
from scalellm_trt.bench.load import cell_plan, exchange, progress
from scalellm_trt.bench.load.cell_run import CellRun
from scalellm_trt.bench.load.crew import Crew
from scalellm_trt.bench.load.job_source import JobSource, id_of_turn
from scalellm_trt.bench.load.progress import CellProgress, Work
from scalellm_trt.bench.load.scribe import Scribe
from scalellm_trt.bench.run import Cell, Run
from scalellm_trt.bench.targets import open_target
from scalellm_trt.bench.workload import note

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import TextIO

    from scalellm_trt.bench.load.cell_plan import Effort, PlannedCell
    from scalellm_trt.bench.load.exchange import Asked
    from scalellm_trt.bench.load.progress import Reporter
    from scalellm_trt.bench.run import Load, Target, WorkloadNote
    from scalellm_trt.bench.targets.target import Way
    from scalellm_trt.bench.tokens import ServedTokenizer
    from scalellm_trt.bench.workload import Workload

PROGRESS_S = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a run is to do.

    Attributes:
        targets: as they were found; one for each way.
        loads, efforts: of each workload.
        processes: client processes of a cell; None lets the load decide.
    """

    ways: Sequence[Way]
    targets: Sequence[Target]
    workloads: Sequence[Workload]
    loads: Sequence[Sequence[Load]]
    efforts: Sequence[Effort]
    rounds: int
    timeout_s: float
    seed: int
    processes: int | None
    num_cores: int
    command: str
    environment: Mapping[str, str]


@dataclass(slots=True)
class Runner:
    """Works a wish off; `run` may be called once."""

    wish: Wish
    tokenizer: ServedTokenizer
    directory: Path
    reporter: Reporter
    _notes: tuple[WorkloadNote, ...] = ()
    _cells: list[Cell] = field(default_factory=list)
    _crews: dict[int, Crew] = field(default_factory=dict)
    _given_up: set[int] = field(default_factory=set)
    _answered: set[int] = field(default_factory=set)
    _work_done: list[tuple[Work, float]] = field(default_factory=list)
    _zero_s: float = field(default_factory=time.monotonic)
    _started: str = field(default_factory=lambda: _now())
    _prefix: str = field(default_factory=lambda: secrets.token_hex(4))

    def run(self) -> Run:
        """Do all of it; after an interrupt what was done stays, and the interrupt goes on.

        Returns:
            The run; partial where a target was given up.

        Raises:
            StageError: a client process does not come up, or ended by itself.
            KeyboardInterrupt: as it came.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        self._notes = tuple(note(workload) for workload in self.wish.workloads)
        plan = cell_plan.in_order(len(self.wish.ways), self.wish.loads, self.wish.rounds)
        with (self.directory / "records.jsonl").open("w", encoding="utf-8") as file, contextlib.ExitStack() as stack:
            self._write(is_partial=True)
            for number, planned in enumerate(plan):
                if planned.target in self._given_up:
                    continue
                self._run_cell(planned, plan[number:], number, len(plan), file, stack)
        return self._write(is_partial=bool(self._given_up))

    def _run_cell(
        self,
        planned: PlannedCell,
        left: Sequence[PlannedCell],
        number: int,
        count: int,
        file: TextIO,
        stack: contextlib.ExitStack,
    ) -> None:
        wish, index = self.wish, len(self._cells)
        processes = cell_plan.num_processes(wish.processes, planned.load, wish.num_cores)
        if wish.ways[planned.target].kind == "in-process":
            processes = 1  # each would have an engine of its own
        crew = self._crew(planned.target, processes, stack)
        shown = CellProgress(
            number=number + 1,
            num_cells=count,
            target=wish.targets[planned.target].name,
            workload=wish.workloads[planned.workload].name,
            load=planned.load,
            round=planned.round,
            num_wanted=cell_plan.num_requests(wish.efforts[planned.workload], planned.load),
            eta_s=progress.eta_s(self._work_done, [self._work(each) for each in left]),
        )
        jobs = JobSource(wish.workloads[planned.workload], self.tokenizer, cell=index, prefix=self._prefix)
        book = _Book(self, planned, jobs, shown, file, index)
        cell = CellRun(
            crew, jobs, planned.load, wish.efforts[planned.workload],
            num_processes=processes, timeout_s=wish.timeout_s, seed=wish.seed,
            has_answered=planned.target in self._answered, take=book.take,
        )  # fmt: skip
        began_s = time.monotonic()
        self.reporter.progress(shown)
        self._note_cell(planned, index, cell)  # should this process be killed, its records belong somewhere
        try:
            cell.run()
        except KeyboardInterrupt:
            cell.cancel()
            raise
        finally:
            self._note_cell(planned, index, cell)
        self._work_done.append((self._work(planned), time.monotonic() - began_s))
        if cell.outcome.gave_up:
            self._given_up.add(planned.target)
            self.reporter.note(f"{shown.target} is given up: it failed again and again, last with {shown.last_error}")
        self.reporter.finished(shown)

    def _crew(self, target: int, count: int, stack: contextlib.ExitStack) -> Crew:
        crew = self._crews.get(target)
        if crew is None:
            setup = exchange.Setup(way=self.wish.ways[target], tokenizer=self.tokenizer.directory)
            crew = self._crews[target] = stack.enter_context(Crew(setup, count))
        elif crew.size < count:
            crew.grow(count)
        return crew

    def _work(self, planned: PlannedCell) -> Work:
        effort = self.wish.efforts[planned.workload]
        count = cell_plan.num_requests(effort, planned.load) or 0
        # Twice as many at a time take neither as long nor twice as long for each.
        amount = effort.duration_s or count / math.sqrt(planned.load.concurrency or 1)
        return Work(kind=(planned.target, planned.workload, planned.load.label), amount=amount)

    def _note_cell(self, planned: PlannedCell, index: int, cell: CellRun) -> None:
        outcome = cell.outcome
        noted = Cell(
            index=index,
            target=planned.target,
            workload=planned.workload,
            load=planned.load,
            round=planned.round,
            begin_s=round(outcome.begin_s - self._zero_s, 6) if outcome.begin_s else 0.0,
            end_s=round(outcome.end_s - self._zero_s, 6) if outcome.end_s else 0.0,
            client=outcome.health,
            is_complete=outcome.is_complete,
        )
        self._cells[index:] = [noted]
        self._write(is_partial=True)

    def _write(self, *, is_partial: bool) -> Run:
        run = Run(
            started=self._started,
            command=self.wish.command,
            environment=self.wish.environment,
            targets=tuple(self.wish.targets),
            workloads=self._notes,
            cells=tuple(self._cells),
            timeout_s=self.wish.timeout_s,
            is_partial=is_partial,
        )
        run.write(self.directory)
        return run


class _Book:
    """Writes a cell's requests down, and shows how far it is."""

    def __init__(
        self, runner: Runner, planned: PlannedCell, jobs: JobSource, shown: CellProgress, file: TextIO, cell: int
    ) -> None:
        self._runner, self._jobs, self._shown, self._file, self._cell = runner, jobs, shown, file, cell
        self._target = planned.target
        self._scribe = Scribe(runner.tokenizer, runner._zero_s)
        self._reader = open_target.reader(runner.wish.ways[planned.target], lambda: runner.tokenizer)
        self._began_s = self._shown_s = time.monotonic()

    def take(self, asked: Asked) -> bool:
        """Write a request down; return whether it was answered."""
        request_id = id_of_turn(self._jobs.request_id(asked.job, is_warmup=asked.is_warmup), asked.turn)
        has_turns = not asked.is_last_turn or asked.turn > 0
        record = self._scribe.record(asked, self._reader, cell=self._cell, request_id=request_id, has_turns=has_turns)
        records.write(record, self._file)
        self._file.flush()
        if record.is_good:
            self._runner._answered.add(self._target)
        if record.is_warmup:
            self._shown.last_error = f"{record.error}: {record.error_text}" if record.error else self._shown.last_error
        else:
            self._shown.take(record)
        now_s = time.monotonic()
        self._shown.elapsed_s = now_s - self._began_s
        if now_s - self._shown_s >= PROGRESS_S:
            self._shown_s = now_s
            self._runner.reporter.progress(self._shown)
        return record.is_good


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")

"""A run of the load generator, described: who was asked what, how hard, on which machine; its cells point at records.

A run directory holds `run.json` (this) and `records.jsonl` (`records`); reports, exports and scores are made of both.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from scalellm_trt.bench import records
from scalellm_trt.errors import ArtefactError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from scalellm_trt.bench.records import RequestRecord

SCHEMA = 1
TargetKind = Literal["openai", "triton-text", "triton-tokens", "in-process"]
LoadMode = Literal["closed", "constant", "poisson"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What is measured.

    Attributes:
        name: short, in tables; unique in a run.
        kind: how it is asked.
        url: without credentials; empty in process.
        model: the model's name there.
        streams: whether answers come in parts; without it there is no TTFT.
        facts: what else is known: manifest digest, engine digest, versions, recipe. Text only.
        hardware: key in data/hardware.yaml of the card or processor behind it; None if nobody said.
    """

    name: str
    kind: TargetKind
    url: str
    model: str
    streams: bool
    facts: Mapping[str, str]
    hardware: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How hard a target is asked.

    Attributes:
        mode: closed: `concurrency` requests at any time. constant, poisson: `rate_per_s` whatever comes back.
        concurrency: requests at a time; None in an open loop.
        rate_per_s: requests that are due in a second; None in a closed loop.
    """

    mode: LoadMode
    concurrency: int | None = None
    rate_per_s: float | None = None

    @property
    def label(self) -> str:
        """Return it for a table."""
        return f"{self.concurrency}" if self.mode == "closed" else f"{self.rate_per_s:g}/s {self.mode}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientHealth:
    """Whether the load generator itself could keep up.

    Attributes:
        num_processes: that made the load.
        cpu_share: of its busiest process, of one core, 0 to 1.
        loop_lag_p50_ms: how late its event loop came to a timer.
        loop_lag_p99_ms: the same.
        send_delay_p99_ms: from when a request was due to when it was sent; 0 in a closed loop.
    """

    num_processes: int
    cpu_share: float
    loop_lag_p50_ms: float
    loop_lag_p99_ms: float
    send_delay_p99_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One target under one load in one round.

    Attributes:
        index: its records carry it.
        target: index in `Run.targets`.
        workload: index in `Run.workloads`.
        round: repeats of the same cell have different ones; targets take turns within a round.
        begin_s: when measuring began, after the warm-up.
        end_s: when the last measured request had ended or was given up.
        is_complete: False when it was interrupted.
    """

    index: int
    target: int
    workload: int
    load: Load
    round: int
    begin_s: float
    end_s: float
    client: ClientHealth
    is_complete: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadNote:
    """What was asked.

    Attributes:
        name: as on the command line, with its settings.
        seed: of everything drawn.
        isl_p50: tokens of the prompts, median.
        isl_max: the same, longest.
        osl_p50: tokens asked for, median.
        digest: SHA-256 of all prompts and settings: equal digests, equal work.
    """

    name: str
    seed: int
    isl_p50: int
    isl_max: int
    osl_p50: int
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """All of it.

    Attributes:
        started: UTC, ISO 8601.
        command: as typed.
        environment: machine, versions; text only.
        timeout_s: that a request has.
        is_partial: interrupted before all cells were done.
    """

    started: str
    command: str
    environment: Mapping[str, str]
    targets: tuple[Target, ...]
    workloads: tuple[WorkloadNote, ...]
    cells: tuple[Cell, ...]
    timeout_s: float
    is_partial: bool

    def write(self, directory: Path) -> None:
        """Write `run.json`, whole or not at all."""
        partial = directory / "run.json.partial"
        partial.write_text(json.dumps({"schema": SCHEMA, **dataclasses.asdict(self)}, indent=1) + "\n")
        partial.replace(directory / "run.json")


def read(directory: Path) -> tuple[Run, list[RequestRecord]]:
    """Return the run of a directory with its records.

    Raises:
        ArtefactError: it holds none, or none that this version reads.
    """
    path = directory / "run.json"
    try:
        fields = json.loads(path.read_text())
        if fields.pop("schema") != SCHEMA:
            message = f"{path}: another schema than {SCHEMA}. Run the benchmark again"
            raise ArtefactError(message)
        found = list(records.read(directory / "records.jsonl"))
        return _mended(_run(fields), found), found
    except (OSError, ValueError, TypeError, KeyError) as error:
        message = f"{path}: not a run of `scalellm-trt bench`: {error}. Name the directory that a run wrote"
        raise ArtefactError(message) from error


def _run(fields: dict[str, Any]) -> Run:
    cells = [
        {**cell, "load": Load(**cell["load"]), "client": ClientHealth(**cell["client"])} for cell in fields["cells"]
    ]
    return Run(
        **{
            **fields,
            "targets": tuple(Target(**target) for target in fields["targets"]),
            "workloads": tuple(WorkloadNote(**note) for note in fields["workloads"]),
            "cells": tuple(Cell(**cell) for cell in cells),
        }
    )


def _mended(run: Run, all_records: Sequence[RequestRecord]) -> Run:
    """Return a run in which a cell that a kill cut off lasts as long as its records say."""
    cells = []
    for cell in run.cells:
        found = records_of(cell, all_records)
        if not cell.is_complete and cell.end_s <= cell.begin_s and found:
            begin_s, end_s = min(record.scheduled_s for record in found), max(record.end_s for record in found)
            cells.append(dataclasses.replace(cell, begin_s=begin_s, end_s=end_s))
        else:
            cells.append(cell)
    return dataclasses.replace(run, cells=tuple(cells))


def records_of(cell: Cell, all_records: Sequence[RequestRecord]) -> list[RequestRecord]:
    """Return the measured records of a cell, without its warm-up."""
    return [record for record in all_records if record.cell == cell.index and not record.is_warmup]

"""Targets, workloads, loads and rounds in; the cells of a run in the order in which they are measured, out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scalellm_trt.bench.run import Load

STREAMS_OF_A_PROCESS = 64
LEAST_REQUESTS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How long a cell is measured: so many requests, or so many seconds in which requests begin.

    Attributes:
        num_requests: None where the time decides, or where it follows from the load.
        duration_s: None where the number decides.
        num_warmup: requests before.
    """

    num_requests: int | None = None
    duration_s: float | None = None
    num_warmup: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedCell:
    """One cell; indices are those of the run's targets and workloads."""

    target: int
    workload: int
    load: Load
    round: int


def in_order(num_targets: int, loads_of_workloads: Sequence[Sequence[Load]], num_rounds: int) -> list[PlannedCell]:
    """Return all cells: targets take turns at each load, and another one begins each time.

    So what a machine does in the course of a run (it warms up, others use it) meets all targets alike.
    """
    cells: list[PlannedCell] = []
    for number in range(num_rounds):
        place = 0
        for workload, loads in enumerate(loads_of_workloads):
            for load in loads:
                for step in range(num_targets):
                    target = (step + number + place) % num_targets
                    cells.append(PlannedCell(target=target, workload=workload, load=load, round=number))
                place += 1
    return cells


def num_requests(effort: Effort, load: Load) -> int | None:
    """Return how many requests a cell has; None where its duration decides.

    Without a number each stream of a closed loop has two, and all have `LEAST_REQUESTS` at least.
    """
    if effort.num_requests is not None:
        return effort.num_requests
    if effort.duration_s is not None:
        return None
    return max(LEAST_REQUESTS, 2 * (load.concurrency or 0))


def num_processes(wanted: int | None, load: Load, num_cores: int) -> int:
    """Return how many client processes make a load: as wanted, else one per 64 streams on half of the cores at most."""
    if wanted is not None:
        return min(wanted, load.concurrency or wanted)
    if load.concurrency is None:
        return max(1, min(2, num_cores // 2))
    return max(1, min(num_cores // 2, math.ceil(load.concurrency / STREAMS_OF_A_PROCESS)))


def shares(concurrency: int, count: int) -> list[int]:
    """Return how many streams each of `count` processes has."""
    return [concurrency // count + (number < concurrency % count) for number in range(count)]

"""Runs of the load generator that nobody ran: records with exact times, and whole runs drawn from a seed."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from scalellm_trt.bench import records as bench_records
from scalellm_trt.bench.records import RequestRecord
from scalellm_trt.bench.run import Cell, ClientHealth, Load, Run, Target, WorkloadNote

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

CALM = ClientHealth(num_processes=1, cpu_share=0.2, loop_lag_p50_ms=0.1, loop_lag_p99_ms=1.0, send_delay_p99_ms=0.0)


def record(chunk_s: Sequence[float] = (1.0, 1.25, 1.5), end_s: float | None = None, **fields: Any) -> RequestRecord:
    """Return a good request that was due at 0 s, a token a chunk, unless `fields` say otherwise."""
    times = tuple(chunk_s)
    tokens = fields.pop("chunk_tokens", (1,) * len(times))
    made: dict[str, Any] = {
        "cell": 0,
        "index": 0,
        "request_id": "request",
        "scheduled_s": 0.0,
        "sent_s": fields.get("scheduled_s", 0.0),
        "chunk_s": times,
        "chunk_tokens": tokens,
        "end_s": (times[-1] if times else 1.0) if end_s is None else end_s,
        "isl": 10,
        "osl": sum(tokens),
        "max_tokens": max(1, sum(tokens)),
        "finish_reason": "length",
        **fields,
    }
    return RequestRecord(**made)


def target(name: str = "gateway", **fields: Any) -> Target:
    """Return a target that streams."""
    made = {"kind": "openai", "url": f"http://{name}.example", "model": "smollm2", "streams": True, "facts": {}}
    return Target(**{"name": name, **made, **fields})


def cell(index: int = 0, concurrency: int = 1, **fields: Any) -> Cell:
    """Return a complete cell of ten seconds from 0 on, of the first target in the first round."""
    made = {
        "target": 0,
        "workload": 0,
        "load": Load(mode="closed", concurrency=concurrency),
        "round": 0,
        "begin_s": 0.0,
        "end_s": 10.0,
        "client": CALM,
        "is_complete": True,
    }
    return Cell(**{"index": index, **made, **fields})


def run(cells: Sequence[Cell], targets: Sequence[Target] = (), **fields: Any) -> Run:
    """Return a whole run of one workload."""
    made = {
        "started": "2026-11-25T10:00:00Z",
        "command": "scalellm-trt bench http://gateway.example --concurrency 1,2",
        "environment": {"processor": "2 cores", "python": "3.11"},
        "workloads": (WorkloadNote(name="fixed 10/3", seed=1, isl_p50=10, isl_max=10, osl_p50=3, digest="0a1b"),),
        "timeout_s": 60.0,
        "is_partial": False,
    }
    return Run(**{**made, "targets": tuple(targets) or (target(),), "cells": tuple(cells), **fields})


def drawn(
    *, names: Sequence[str] = ("gateway", "vllm"), loads: Sequence[int] = (1, 2, 4), rounds: int = 2, seed: int = 7
) -> tuple[Run, list[RequestRecord]]:
    """Return a run whose latencies grow with the load, the second target's 1.5 times the first's, and its records."""
    dice = random.Random(seed)
    cells: list[Cell] = []
    found: list[RequestRecord] = []
    begin_s = 1.0
    for turn in range(rounds):
        for concurrency in loads:
            for place, _ in enumerate(names):
                slow = (1 + 0.5 * place) * (1 + 0.1 * concurrency)
                made = _drawn_cell(dice, len(cells), concurrency, begin_s, slow)
                end_s = max(each.end_s for each in made)
                cells.append(cell(len(cells), concurrency, target=place, round=turn, begin_s=begin_s, end_s=end_s))
                found += made
                begin_s = end_s + 0.5
    return run(cells, [target(name) for name in names]), found


def write(described: Run, records: Sequence[RequestRecord], directory: Path) -> Path:
    """Write a run directory."""
    directory.mkdir(parents=True, exist_ok=True)
    described.write(directory)
    bench_records.write_all(records, directory / "records.jsonl")
    return directory


def _drawn_cell(dice: random.Random, index: int, users: int, begin_s: float, slow: float) -> list[RequestRecord]:
    """Return six requests of each of `users`, one after the other."""
    made: list[RequestRecord] = []
    for _ in range(users):
        now = begin_s
        for _ in range(6):
            first = now + slow * dice.uniform(0.04, 0.06)
            gaps = [slow * dice.uniform(0.008, 0.012) for _ in range(dice.randint(10, 20))]
            chunks = [first]
            for gap in gaps:
                chunks.append(chunks[-1] + gap)
            end_s = chunks[-1] + 0.0005
            number = len(made)
            made.append(
                record(
                    chunks,
                    end_s,
                    cell=index,
                    index=number,
                    request_id=f"{index}-{number}",
                    scheduled_s=now,
                    isl=dice.randint(200, 300),
                    server_osl=len(chunks),
                )
            )
            now = end_s
    return made

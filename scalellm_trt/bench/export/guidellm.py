"""guidellm's `benchmarks.json`: one report for each target, a benchmark in it for each load.

guidellm's `time_per_output_token_ms` counts the first token in (latency / tokens), its `inter_token_latency_ms` does
not: that is our TPOT. Rates and concurrency are distributions over twenty slices of each round's time. Single requests
are not in it.
"""

from __future__ import annotations

import json
import platform
from typing import TYPE_CHECKING, Any

import numpy as np

from scalellm_trt import __version__
from scalellm_trt.bench import metrics
from scalellm_trt.bench.export import rows
from scalellm_trt.bench.summary import slices

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from scalellm_trt.bench.export.rows import Files, Row
    from scalellm_trt.bench.records import RequestRecord
    from scalellm_trt.bench.report.content import Content
    from scalellm_trt.bench.run import Cell

    Of = Callable[[RequestRecord], float | None]

SCHEMA_VERSION = 2
PERCENTILES = {
    "p001": 0.1, "p01": 1.0, "p05": 5.0, "p10": 10.0, "p25": 25.0, "p50": 50.0, "p75": 75.0, "p90": 90.0, "p95": 95.0,
    "p99": 99.0, "p999": 99.9,
}  # fmt: skip

NO_CONCURRENCY = ("input_concurrency", "output_concurrency", "total_concurrency")
# What only other kinds of answers have; guidellm wants to see that it is missing.
NOT_TEXT = {
    "image": ("tokens", "images", "pixels", "bytes"),
    "video": ("tokens", "frames", "seconds", "bytes"),
    "audio": ("tokens", "samples", "seconds", "bytes"),
    "tool_call": ("tokens", "mixed_tokens", "count"),
}


def files(content: Content) -> Files:
    """Return a report for each target."""
    groups: dict[str, list[Row]] = {}
    for row in rows.rows(content):
        groups.setdefault(rows.slug(row.target.name), []).append(row)
    return {f"{name}/benchmarks.json": _report(group) for name, group in groups.items()}


def _report(group: Sequence[Row]) -> str:
    about = {
        "version": SCHEMA_VERSION,
        "guidellm_version": f"written by scalellm-trt {__version__}",
        "python_version": platform.python_version(),
        "platform": platform.platform(),
    }
    benchmarks = [_benchmark(row, place) for place, row in enumerate(group)]
    return json.dumps({"metadata": about, "config": _scenario(group), "benchmarks": benchmarks}, indent=1) + "\n"


def _scenario(group: Sequence[Row]) -> dict[str, Any]:
    """Return what guidellm would be told to do about the same; it knows targets by HTTP only."""
    row = group[0]
    loads = [each.summary.load for each in group if each.summary.load.mode == row.summary.load.mode]
    work = row.content.run.workloads[row.summary.workload]
    profile: dict[str, Any] = {"kind": row.summary.load.mode, "rate": [load.rate_per_s for load in loads]}
    if row.summary.load.mode == "closed":
        profile = {"kind": "concurrent", "streams": [load.concurrency for load in loads]}
    return {
        "metadata": {"labels": {"command": row.content.run.command, "workload": work.name}},
        "spec": {
            "backend": {"kind": "openai_http", "target": row.target.url or row.target.kind, "model": row.target.model},
            "profile": profile,
            "data": [
                {
                    "kind": "synthetic_text",
                    "prompt_tokens": max(1, work.isl_p50),
                    "output_tokens": max(1, work.osl_p50),
                }
            ],
        },
    }


def _benchmark(row: Row, place: int) -> dict[str, Any]:
    run, summary = row.content.run, row.summary
    workload = run.workloads[summary.workload]
    return {
        "type_": "generative_benchmark",
        "config": {
            "id_": row.slug,
            "run_id": run.started,
            "run_index": place,
            "strategy": _strategy(row),
            "constraints": {},
            "profile": {"type_": summary.load.mode},
            "requests": {"name": workload.name, "seed": workload.seed, "digest": workload.digest},
            "backend": {"type_": row.target.kind, "target": row.target.url, "model": row.target.model},
            "environment": dict(run.environment),
        },
        "scheduler_state": _state(row),
        "scheduler_metrics": _scheduler(row),
        "metrics": _metrics(row),
        "requests": {"successful": [], "errored": [], "incomplete": [], "total": None},
    }


def _strategy(row: Row) -> dict[str, Any]:
    load = row.summary.load
    if load.concurrency is not None:
        return {"type_": "concurrent", "streams": load.concurrency}
    seed = {"random_seed": row.content.run.workloads[row.summary.workload].seed} if load.mode == "poisson" else {}
    return {"type_": load.mode, "rate": load.rate_per_s, **seed}


def _state(row: Row) -> dict[str, Any]:
    begin_s, end_s = row.window_s
    summary = row.summary
    return {
        "start_time": begin_s,
        "end_time": end_s,
        "created_requests": summary.num_requests,
        "processed_requests": summary.num_requests,
        "successful_requests": summary.num_good,
        "errored_requests": sum(summary.errors.values()),
        "cancelled_requests": summary.num_cancelled,
    }


def _scheduler(row: Row) -> dict[str, Any]:
    begin_s, end_s = row.window_s
    late = [record.sent_s - record.scheduled_s for record in row.records]
    took = [record.end_s - record.sent_s for record in row.records]
    unknown = ("queued_time", "resolve_start_delay", "resolve_end_delay", "finalized_delay", "processed_delay")
    return {
        "start_time": begin_s,
        "request_start_time": begin_s,
        "measure_start_time": begin_s,
        "measure_end_time": end_s,
        "request_end_time": end_s,
        "end_time": end_s,
        "requests_made": _counts(row),
        **{f"{name}_avg": 0.0 for name in unknown},
        "resolve_targeted_start_delay_avg": 0.0,
        "request_start_delay_avg": _mean(late),
        "request_targeted_start_delay_avg": _mean(late),
        "request_time_avg": _mean(took),
        "resolve_time_avg": _mean(took),
    }


def _metrics(row: Row) -> dict[str, Any]:
    first = metrics.ttft_ms if row.target.streams else _nothing
    between = metrics.tpot_ms if row.target.streams else _nothing
    tokens = {
        "input": _by_status(row, metrics.isl),
        "input_per_second": _rate(row, metrics.isl),
        "output": _by_status(row, metrics.osl),
        "output_per_second": _rate(row, metrics.osl),
        "total": _by_status(row, _tokens),
        "total_per_second": _rate(row, _tokens),
    }
    return {
        "request_totals": _counts(row),
        "requests_per_second": _rate(row, lambda record: 1.0),
        "request_concurrency": _concurrency(row),
        "request_latency": _by_status(row, lambda record: metrics.e2e_latency_ms(record) / 1000),
        "request_streaming_iterations_count": _by_status(row, lambda record: float(len(record.chunk_s))),
        "prompt_token_count": tokens["input"],
        "output_token_count": tokens["output"],
        "total_token_count": tokens["total"],
        "time_to_first_token_ms": _by_status(row, first),
        "time_to_first_output_token_ms": _by_status(row, first),
        "time_per_output_token_ms": _by_status(
            row, lambda record: metrics.e2e_latency_ms(record) / record.osl if record.osl else None
        ),
        "inter_token_latency_ms": _by_status(row, between),
        "time_to_last_round_trip_ms": {},
        "avg_round_trip_time_ms": {},
        "prompt_tokens_per_second": tokens["input_per_second"],
        "output_tokens_per_second": tokens["output_per_second"],
        "tokens_per_second": tokens["total_per_second"],
        "output_tokens_per_iteration": _by_status(row, _tokens_a_chunk),
        "iter_tokens_per_iteration": _by_status(row, _tokens_a_later_chunk),
        "text": {"tokens": {**tokens, **dict.fromkeys(NO_CONCURRENCY)}, "words": None, "characters": None},
        **{kind: dict.fromkeys(names) for kind, names in NOT_TEXT.items()},
    }


def _counts(row: Row) -> dict[str, int]:
    summary = row.summary
    errored = sum(summary.errors.values())
    counts = {"successful": summary.num_good, "errored": errored, "incomplete": summary.num_cancelled}
    return {**counts, "total": summary.num_requests}


def _groups(row: Row) -> dict[str, list[RequestRecord]]:
    return {
        "successful": row.good,
        "errored": [record for record in row.records if record.error is not None and not record.was_cancelled],
        "incomplete": [record for record in row.records if record.was_cancelled],
        "total": list(row.records),
    }


def _by_status(row: Row, of: Of) -> dict[str, Any]:
    return {
        name: distribution([value for record in group if (value := of(record)) is not None])
        for name, group in _groups(row).items()
    }


def _rate(row: Row, of: Of) -> dict[str, Any]:
    """Return an amount a second, slice by slice of the time in which requests ended."""
    found = {}
    for name, group in _groups(row).items():
        parts = [part for cell in _cells(row) for part in slices(cell, _of_cell(group, cell), lambda r: of(r) or 0.0)]
        found[name] = distribution([amount / seconds for amount, seconds in parts if seconds > 0])
    return found


def _concurrency(row: Row) -> dict[str, Any]:
    """Return how many requests were on their way, slice by slice."""
    found = {}
    for name, group in _groups(row).items():
        values: list[float] = []
        for cell in _cells(row):
            count = len(slices(cell, [], lambda record: 0.0))
            edges = np.linspace(cell.begin_s, cell.end_s, count + 1)
            begin = np.array([[record.scheduled_s] for record in _of_cell(group, cell)]).reshape(-1, 1)
            end = np.array([[record.end_s] for record in _of_cell(group, cell)]).reshape(-1, 1)
            overlap = np.clip(np.minimum(end, edges[1:]) - np.maximum(begin, edges[:-1]), 0, None).sum(axis=0)
            width = (cell.end_s - cell.begin_s) / count
            values += [float(each) / width for each in overlap] if width > 0 else []
        found[name] = distribution(values)
    return found


def distribution(values: Sequence[float]) -> dict[str, Any]:
    """Return guidellm's summary of samples; zeros for none."""
    found = np.asarray(values if len(values) else [0.0], dtype=np.float64)
    distinct, counts = np.unique(found, return_counts=True)
    return {
        "mean": float(found.mean()),
        "median": float(np.median(found)),
        "mode": float(distinct[np.argmax(counts)]),
        "variance": float(found.var()),
        "std_dev": float(found.std()),
        "min": float(found.min()),
        "max": float(found.max()),
        "count": len(values),
        "total_sum": float(found.sum()),
        "percentiles": {name: float(np.percentile(found, percent)) for name, percent in PERCENTILES.items()},
    }


def _cells(row: Row) -> list[Cell]:
    return [cell for cell in row.content.run.cells if cell.index in row.summary.cells]


def _of_cell(records: Sequence[RequestRecord], cell: Cell) -> list[RequestRecord]:
    return [record for record in records if record.cell == cell.index]


def _tokens(record: RequestRecord) -> float:
    return record.isl + record.osl


def _tokens_a_chunk(record: RequestRecord) -> float | None:
    return record.osl / len(record.chunk_s) if record.chunk_s else None


def _tokens_a_later_chunk(record: RequestRecord) -> float | None:
    later = record.chunk_tokens[1:]
    return sum(later) / len(later) if later else None


def _nothing(record: RequestRecord) -> None:
    return None


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0

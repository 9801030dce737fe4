"""AIPerf's files: `profile_export.jsonl` has a line a request, `profile_export_aiperf.json` and `.csv` the sums."""

from __future__ import annotations

import csv
import dataclasses
import datetime
import io
import json
from typing import TYPE_CHECKING, Any

from scalellm_trt import __version__
from scalellm_trt.bench import metrics
from scalellm_trt.bench.export import rows
from scalellm_trt.bench.report.as_json import standing_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scalellm_trt.bench.export.rows import Files, Row
    from scalellm_trt.bench.records import RequestRecord
    from scalellm_trt.bench.report.content import Content
    from scalellm_trt.economics.standing import Standing

SCHEMA_VERSION = "1.4"
NANO = 1e9
STATISTICS = ("avg", "min", "max", "sum", "p1", "p5", "p10", "p25", "p50", "p75", "p90", "p95", "p99", "std")

# Ours → (AIPerf's name, heading of its table, unit).
DISTRIBUTIONS = (
    (metrics.E2E, "request_latency", "Request Latency", "ms"),
    (metrics.TTFT, "time_to_first_token", "Time to First Token", "ms"),
    (metrics.TPOT, "inter_token_latency", "Inter Token Latency", "ms"),
    (metrics.ICL, "inter_chunk_latency", "Inter Chunk Latency", "ms"),
    (metrics.PER_USER, "output_token_throughput_per_user", "Output Token Throughput Per User", "tokens/sec/user"),
    (metrics.OSL, "output_sequence_length", "Output Sequence Length", "tokens"),
    (metrics.ISL, "input_sequence_length", "Input Sequence Length", "tokens"),
)
_SECOND = ("time_to_second_token", "Time to Second Token", "ms")


def files(content: Content) -> Files:
    """Return the three files of each target under each load, in a directory of its own."""
    found: Files = {}
    for row in rows.rows(content):
        found[f"{row.slug}/profile_export.jsonl"] = "".join(
            f"{json.dumps(_record(row, record), separators=(',', ':'))}\n" for record in row.records
        )
        sums = aggregate(row)
        found[f"{row.slug}/profile_export_aiperf.json"] = json.dumps({**_about(row), **sums}, indent=2) + "\n"
        found[f"{row.slug}/profile_export_aiperf.csv"] = _table(sums)
    return found


def aggregate(row: Row) -> dict[str, Any]:
    """Return the metrics of a row: distributions with `count` and `sum`, and single figures as `avg`."""
    found = {name: {"unit": unit, **_sums(row.samples(metric))} for metric, name, _, unit in DISTRIBUTIONS}
    seconds = [value for record in row.good if (value := _second_ms(record)) is not None and row.target.streams]
    found[_SECOND[0]] = {"unit": _SECOND[2], **_sums(seconds)}
    return {**{name: each for name, each in found.items() if len(each) > 1}, **_totals(row)}


def _sums(values: list[float]) -> dict[str, float]:
    return {**rows.statistics_of(values), "count": len(values), "sum": sum(values)} if values else {}


def _totals(row: Row) -> dict[str, Any]:
    summary = row.summary
    found = {
        "request_throughput": ("requests/sec", summary.request_throughput.value),
        "output_token_throughput": ("tokens/sec", summary.output_token_throughput.value),
        "request_count": ("requests", float(summary.num_good)),
        "error_request_count": ("requests", float(sum(summary.errors.values()))),
        "benchmark_duration": ("sec", summary.duration_s),
        "total_isl": ("tokens", float(sum(record.isl for record in row.good))),
        "total_osl": ("tokens", float(sum(record.osl for record in row.good))),
    }
    if summary.goodput is not None:
        good = sum(row.content.slo.is_met_by(record) for record in row.records)
        found["goodput"] = ("requests/sec", summary.goodput.value)
        found["good_request_count"] = ("requests", float(good))
    return {name: {"unit": unit, "avg": value} for name, (unit, value) in found.items()}


def _about(row: Row) -> dict[str, Any]:
    """Return what is no metric: AIPerf's own keys, and ours, which its model allows."""
    run, summary = row.content.run, row.summary
    begin_s, end_s = row.window_s
    load = dataclasses.asdict(summary.load)
    about = {
        "schema_version": SCHEMA_VERSION,
        "was_cancelled": not summary.is_complete,
        "is_complete": summary.is_complete,
        "error_summary": [
            {"error_details": {"type": name, "message": name}, "count": count} for name, count in summary.errors.items()
        ],
        "start_time": _time(begin_s),
        "end_time": _time(end_s),
        "made_by": f"scalellm-trt {__version__}",
        "command": run.command,
        "target": {"name": row.target.name, "url": row.target.url, "model": row.target.model},
        "load": load,
        "workload": dataclasses.asdict(run.workloads[summary.workload]),
        "environment": dict(run.environment),
        "facts": dict(row.target.facts),
        "economics": [standing_json(each, row.content.api) for each in row.content.standings if _is_of(row, each)],
    }
    digest = next((value for key, value in row.target.facts.items() if "manifest" in key), None)
    return about if digest is None else {**about, "manifest_digest": digest}


def _is_of(row: Row, standing: Standing) -> bool:
    place = row.summary.load.concurrency
    return standing.source == row.target.name and standing.load == f"{place} at once"


def _record(row: Row, record: RequestRecord) -> dict[str, Any]:
    start_ns, end_ns = _ns(row, record.scheduled_s), _ns(row, record.end_s)
    return {
        "metadata": {
            "session_num": record.index if record.conversation is None else record.conversation,
            "x_request_id": record.request_id,
            "x_correlation_id": None,
            "conversation_id": None if record.conversation is None else f"{record.conversation}",
            "turn_index": record.turn,
            "credit_issued_ns": start_ns,
            "request_start_ns": start_ns,
            "request_ack_ns": None,
            "request_end_ns": end_ns,
            "worker_id": f"cell-{record.cell}",
            "record_processor_id": "scalellm-trt",
            "benchmark_phase": "profiling",
            "was_cancelled": record.was_cancelled,
            "cancellation_time_ns": end_ns if record.was_cancelled else None,
        },
        "metrics": _record_metrics(row, record) if record.is_good else {},
        "error": None
        if record.error is None
        else {"code": None, "type": record.error, "message": record.error_text or record.error},
    }


def _record_metrics(row: Row, record: RequestRecord) -> dict[str, Any]:
    found: dict[str, tuple[object, str]] = {}
    for metric, name, _, unit in DISTRIBUTIONS:
        value = metric.of(record)
        if metric.name in row.summary.distributions and value not in (None, []):
            found[name] = (value, unit)
    second = _second_ms(record)
    if second is not None and row.target.streams:
        found[_SECOND[0]] = (second, _SECOND[2])
    return {name: {"value": value, "unit": unit} for name, (value, unit) in found.items()}


def _second_ms(record: RequestRecord) -> float | None:
    return 1000 * (record.chunk_s[1] - record.chunk_s[0]) if len(record.chunk_s) > 1 else None


def _table(sums: Mapping[str, Any]) -> str:
    """Return the CSV: distributions, an empty line, single figures; both by name."""
    headings = {name: (heading, unit) for _, name, heading, unit in DISTRIBUTIONS} | {_SECOND[0]: _SECOND[1:]}
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["Metric", *STATISTICS])
    for name in sorted(name for name in sums if name in headings):
        heading, unit = headings[name]
        writer.writerow([f"{heading} ({unit})", *(f"{sums[name][key]:.2f}" for key in STATISTICS)])
    writer.writerow([])
    writer.writerow(["Metric", "Value"])
    for name in sorted(name for name in sums if name not in headings):
        unit = "" if sums[name]["unit"] == "requests" else f" ({sums[name]['unit']})"
        writer.writerow([f"{name.replace('_', ' ').title()}{unit}", f"{sums[name]['avg']:.2f}"])
    return out.getvalue()


def _ns(row: Row, at_s: float) -> int:
    return round((row.started_s + at_s) * NANO)


def _time(at_s: float) -> str:
    return datetime.datetime.fromtimestamp(at_s, tz=datetime.timezone.utc).isoformat()

"""genai-perf's files: `profile_export_genai_perf.json` and `.csv`; AIPerf succeeded it and kept its names."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Any

from scalellm_trt.bench.export import aiperf, rows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scalellm_trt.bench.export.rows import Files, Row
    from scalellm_trt.bench.report.content import Content

STATISTICS = ("avg", "min", "max", "p99", "p95", "p90", "p75", "p50", "p25", "p10", "p5", "p1")
# In the order of its table; the inter-chunk latency is not among its metrics.
REQUEST_METRICS = (
    ("time_to_first_token", "Time To First Token (ms)"),
    ("time_to_second_token", "Time To Second Token (ms)"),
    ("request_latency", "Request Latency (ms)"),
    ("inter_token_latency", "Inter Token Latency (ms)"),
    ("output_token_throughput_per_user", "Output Token Throughput Per User (tokens/sec/user)"),
    ("output_sequence_length", "Output Sequence Length (tokens)"),
    ("input_sequence_length", "Input Sequence Length (tokens)"),
)
SYSTEM_METRICS = (
    ("output_token_throughput", "Output Token Throughput (tokens/sec)"),
    ("request_throughput", "Request Throughput (per sec)"),
    ("request_count", "Request Count (count)"),
)


def files(content: Content) -> Files:
    """Return both files of each target under each load, in a directory of its own."""
    found: Files = {}
    for row in rows.rows(content):
        sums = _sums(row)
        about = {"input_config": _input_config(row), "environment": dict(content.run.environment)}
        found[f"{row.slug}/profile_export_genai_perf.json"] = json.dumps({**sums, **about}, indent=2) + "\n"
        found[f"{row.slug}/profile_export_genai_perf.csv"] = _table(sums)
    return found


def _sums(row: Row) -> dict[str, Any]:
    found = aiperf.aggregate(row)
    names = [name for name, _ in (*REQUEST_METRICS, *SYSTEM_METRICS) if name in found]
    sums = {name: {key: value for key, value in found[name].items() if key not in ("count", "sum")} for name in names}
    if "goodput" in found:
        sums["request_goodput"] = found["goodput"]
    return sums


def _input_config(row: Row) -> dict[str, Any]:
    load, workload = row.summary.load, row.content.run.workloads[row.summary.workload]
    stimulus = {"concurrency": load.concurrency} if load.concurrency else {"request_rate": load.rate_per_s}
    return {
        "model_names": [row.target.model],
        "endpoint": {"type": row.target.kind, "url": row.target.url, "streaming": row.target.streams},
        "perf_analyzer": {"stimulus": stimulus},
        "input": {"random_seed": workload.seed, "name": workload.name, "digest": workload.digest},
    }


def _table(sums: Mapping[str, Any]) -> str:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["Metric", *STATISTICS])
    for name, heading in REQUEST_METRICS:
        if name in sums:
            writer.writerow([heading, *(f"{sums[name][key]:,.2f}" for key in STATISTICS)])
    writer.writerow([])
    writer.writerow(["Metric", "Value"])
    goodput = (("request_goodput", "Request Goodput (per sec)"),)
    for name, heading in (*SYSTEM_METRICS, *goodput):
        if name in sums:
            writer.writerow([heading, f"{sums[name]['avg']:.2f}"])
    return out.getvalue()

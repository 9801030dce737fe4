"""The JSON of `vllm bench serve --save-result --save-detailed`: one file for each target under each load.

vLLM's `itl` are gaps between chunks, all of them in one pool: our inter-chunk latency. `queue_times` is how late
requests were sent; latencies count it in, as ours do. Texts of answers are not in it: records do not keep them.
"""

from __future__ import annotations

import datetime
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from scalellm_trt.bench import metrics
from scalellm_trt.bench.export import rows

if TYPE_CHECKING:
    from scalellm_trt.bench.export.rows import Files, Row
    from scalellm_trt.bench.report.content import Content

LATENCIES = ((metrics.TTFT, "ttft"), (metrics.TPOT, "tpot"), (metrics.ICL, "itl"), (metrics.E2E, "e2el"))
PERCENTILES = (50, 90, 95, 99)


def files(content: Content) -> Files:
    """Return a file for each target under each load."""
    return {f"{row.slug}.json": json.dumps(_result(row), indent=1) + "\n" for row in rows.rows(content)}


def _result(row: Row) -> dict[str, Any]:
    summary, load, records = row.summary, row.summary.load, row.records
    total = summary.input_token_throughput.value + summary.output_token_throughput.value
    begin_s, _ = row.window_s
    return {
        "date": datetime.datetime.fromtimestamp(begin_s, tz=datetime.timezone.utc).strftime("%Y%m%d-%H%M%S"),
        "backend": row.target.kind,
        "endpoint_type": row.target.kind,
        "label": row.target.name,
        "model_id": row.target.model,
        "tokenizer_id": row.target.model,
        "num_prompts": summary.num_requests,
        "request_rate": "inf" if load.rate_per_s is None else load.rate_per_s,
        "burstiness": "inf" if load.mode == "constant" else 1.0,
        "max_concurrency": load.concurrency,
        "duration": summary.duration_s,
        "completed": summary.num_good,
        "failed": summary.num_requests - summary.num_good,
        "total_input_tokens": sum(record.isl for record in row.good),
        "total_output_tokens": sum(record.osl for record in row.good),
        "request_throughput": summary.request_throughput.value,
        "request_goodput": None if summary.goodput is None else summary.goodput.value,
        "output_throughput": summary.output_token_throughput.value,
        "total_token_throughput": total,
        "input_lens": [record.isl for record in records],
        "output_lens": [record.osl for record in records],
        "ttfts": [(metrics.ttft_ms(record) or 0.0) / 1000 for record in records],
        "itls": [[gap / 1000 for gap in metrics.icl_ms(record)] for record in records],
        "latencies": [metrics.e2e_latency_ms(record) / 1000 for record in records],
        "queue_times": [record.sent_s - record.scheduled_s for record in records],
        "start_times": [row.started_s + record.scheduled_s for record in records],
        "errors": ["" if record.is_good else record.error or "cancelled" for record in records],
        **{key: value for metric, name in LATENCIES for key, value in _latency(row, metric, name).items()},
    }


def _latency(row: Row, metric: metrics.Metric, name: str) -> dict[str, float]:
    """Return vLLM's four kinds of figures; 0 without samples, as it does."""
    values = np.asarray(row.samples(metric) or [0.0], dtype=np.float64)
    return {
        f"mean_{name}_ms": float(values.mean()),
        f"median_{name}_ms": float(np.median(values)),
        f"std_{name}_ms": float(values.std()),
        **{f"p{percent}_{name}_ms": float(np.percentile(values, percent)) for percent in PERCENTILES},
    }

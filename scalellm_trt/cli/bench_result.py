"""What `bench` prints at its end: ScaleLLM's table and the throughput, or the same figures as JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from scalellm_trt.bench.run import Run
    from scalellm_trt.bench.summary import Summary


def show(directory: Path, *, as_json: bool) -> None:
    """Print the run in `directory`."""
    from scalellm_trt.bench import metrics, summary, tables
    from scalellm_trt.bench import run as runs
    from scalellm_trt.cli import bench_view
    from scalellm_trt.cli import tables as screen

    run, records = runs.read(directory)
    slo = metrics.Slo()
    found = summary.summarize(run, records, slo)
    if as_json:
        rows = [_row(run, each) for each in found]
        print(json.dumps({"directory": str(directory), "is_partial": run.is_partial, "results": rows}))
        return
    console = screen.console()
    for each in (*tables.latency_tables(run, found), tables.rate_table(run, found, slo)):
        bench_view.show_table(each, console)
    print(f"run: {directory}")


def _row(run: Run, found: Summary) -> dict[str, object]:
    percentiles = {
        name: {f"p{percent}": value.value for percent, value in distribution.percentiles.items()}
        for name, distribution in found.distributions.items()
    }
    return {
        "target": run.targets[found.target].name,
        "workload": run.workloads[found.workload].name,
        "load": found.load.label,
        "num_requests": found.num_requests,
        "num_good": found.num_good,
        "errors": dict(found.errors),
        "request_throughput": found.request_throughput.value,
        "output_token_throughput": found.output_token_throughput.value,
        **percentiles,
    }

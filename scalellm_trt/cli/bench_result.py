"""What `bench` leaves: a report in the run's directory, and on the screen its doubts and tables, or JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import typer

from scalellm_trt.cli import report

if TYPE_CHECKING:
    from pathlib import Path

    from scalellm_trt.bench.metrics import Slo


def show(directory: Path, *, as_json: bool, slo: Slo | None = None) -> None:
    """Print the run in `directory` and write `report.html` beside its records."""
    from scalellm_trt.bench import metrics
    from scalellm_trt.bench import run as runs
    from scalellm_trt.bench.report import as_json as json_report
    from scalellm_trt.bench.report import content as contents
    from scalellm_trt.cli import bench_options

    described, records = runs.read(directory)
    content = contents.gather(
        described,
        records,
        slo=slo or metrics.Slo(),
        ceilings=bench_options.ceilings(described, None, None, None),
        quotes=bench_options.quotes(None),
        api=None,
    )
    if as_json:
        typer.echo(json.dumps({"directory": str(directory), **json_report.as_json(content)}, allow_nan=False))
    else:
        report.show(content)
        print(f"run: {directory}")
    report.write(content, directory / report.FILE_NAME)

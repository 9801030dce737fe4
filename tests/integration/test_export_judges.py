"""Exports read by the tools whose shape they have, where these are installed: each in an environment of its own.

SCALELLM_AIPERF_PYTHON and SCALELLM_GUIDELLM_PYTHON name the interpreters; both tools are on PyPI.
"""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from scalellm_trt.bench.export import aiperf, guidellm
from scalellm_trt.bench.metrics import Slo
from scalellm_trt.bench.report import content
from tests.fakes import bench_runs

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration

AIPERF = """
import pathlib, sys
from aiperf.common.models.export_models import JsonExportData
from aiperf.common.models.record_models import MetricRecordInfo
for path in sorted(pathlib.Path(sys.argv[1]).rglob("profile_export_aiperf.json")):
    sums = JsonExportData.model_validate_json(path.read_text())
    lines = (path.parent / "profile_export.jsonl").read_text().splitlines()
    records = [MetricRecordInfo.model_validate_json(line) for line in lines]
    print(path.parent.name, len(records), round(sums.time_to_first_token.p50, 3))
"""
GUIDELLM = """
import pathlib, sys
from guidellm.benchmark.schemas.report import GenerativeBenchmarksReport
for path in sorted(pathlib.Path(sys.argv[1]).rglob("benchmarks.json")):
    for each in GenerativeBenchmarksReport.load_file(path).benchmarks:
        first = each.metrics.time_to_first_token_ms.successful
        print(path.parent.name, first.count, round(first.median, 3))
"""


def judged(variable: str, program: str, files: dict[str, str], directory: Path) -> list[str]:
    """Return what a tool's own models print of the files; skip where the tool is not installed."""
    interpreter = os.environ.get(variable)
    if not interpreter:
        pytest.skip(f"{variable} names no interpreter that has it")
    for name, text in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text, encoding="utf-8")
    done = subprocess.run([interpreter, "-c", program, str(directory)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()


@pytest.fixture
def gathered() -> content.Content:
    described, records = bench_runs.drawn(loads=(1, 4))
    return content.gather(described, records, slo=Slo(ttft_ms=80))


def test_aiperf_reads_its_files(gathered: content.Content, tmp_path: Path) -> None:
    expected = [
        f"{gathered.run.targets[each.target].name}-concurrency-{each.load.concurrency} {each.num_requests} "
        f"{each.distributions['ttft_ms'].p50.value:.3f}".rstrip("0")
        for each in gathered.summaries
    ]
    found = judged("SCALELLM_AIPERF_PYTHON", AIPERF, aiperf.files(gathered), tmp_path)
    assert sorted(line.rstrip("0") for line in found) == sorted(expected)


def test_guidellm_reads_its_file(gathered: content.Content, tmp_path: Path) -> None:
    expected = [
        f"{gathered.run.targets[each.target].name} {each.num_good} "
        f"{each.distributions['ttft_ms'].p50.value:.3f}".rstrip("0")
        for each in gathered.summaries
    ]
    found = judged("SCALELLM_GUIDELLM_PYTHON", GUIDELLM, guidellm.files(gathered), tmp_path)
    assert sorted(line.rstrip("0") for line in found) == sorted(expected)

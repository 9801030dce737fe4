"""`bench` of one model by every way there is: real weights in the real tritonserver, directly and by the gateway."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from scalellm_trt.bench import run as runs
from tests.fakes.gateways import running

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.conftest import Server

pytestmark = pytest.mark.integration
MODEL = "smollm2-135m-cpu"
TARGETS = ("tokens", "text", "gateway")


def test_the_ways_to_one_model_are_measured_in_turns(server: Server, tmp_path: Path) -> None:
    directory = tmp_path / "run"
    with running(server.repository, server.grpc_url, tmp_path / "log") as gateway:
        urls = (
            f"tokens=grpc://{server.grpc_url}/{MODEL}",
            f"text=grpc-text://{server.grpc_url}/{MODEL}",
            f"gateway={gateway.url}",
        )
        argv = [sys.executable, "-m", "scalellm_trt", "bench", "--repository", str(server.repository), "--json"]
        argv += ["--concurrency", "1,3", "--requests", "3", "--isl", "40", "--osl", "8", "--out", str(directory)]
        argv += ["--slo", "e2e:600000", *(word for url in urls for word in ("--target", url))]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    described, records = runs.read(directory)
    assert [target.name for target in described.targets] == list(TARGETS)
    for target in described.targets:
        assert target.model == MODEL
        assert len(target.facts["engine_digest"]) == len(target.facts["manifest_digest"]) == 64
    assert len(described.cells) == 6
    for cell in described.cells:
        measured = runs.records_of(cell, records)
        assert len(measured) == 3
        for record in measured:
            assert record.error is None, record.error_text
            assert (record.isl, record.osl) == (40, 8)
            assert record.server_isl in (None, 40)
            assert record.server_osl in (None, 8)
            assert record.scheduled_s <= record.chunk_s[0] <= record.chunk_s[-1] <= record.end_s
    assert {record.server_osl for record in records} >= {8}
    report: dict[str, Any] = json.loads(done.stdout)
    assert report["directory"] == str(directory)
    page = (directory / "report.html").read_text()
    assert "http://" not in page.split("<body", 1)[0]
    assert described.targets[0].facts["engine_digest"][:12] in page

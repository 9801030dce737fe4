"""The conformance script, against the gateway in front of the served model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.fakes.gateways import running

if TYPE_CHECKING:
    from tests.integration.conftest import Server

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]


def test_the_gateway_passes_every_check(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = tmp_path / "report.json"
    key = "a-key-of-this-test"
    monkeypatch.setenv("SCALELLM_API_KEY", key)
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with running(server.repository, server.grpc_url, tmp_path / "log") as gateway:
        ended = subprocess.run(
            [sys.executable, "-m", "scripts.conformance", "--base-url", f"{gateway.url}/v1", "--json", str(report)],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    outcome = json.loads(report.read_text())
    assert outcome["num_checks"] >= 100
    assert outcome["num_failed"] == 0

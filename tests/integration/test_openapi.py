"""A fuzzer reads the gateway's description and finds no answer that it does not describe, and none of 5xx."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.fakes.gateways import END_ID, MODEL, running, write_repository
from tests.fakes.token_server import TokenServer

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("schemathesis", reason="schemathesis is not installed (extra dev)")
pytestmark = pytest.mark.integration
CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance",
    "unsupported_method",
)  # fmt: skip


@pytest.mark.parametrize("seed", [1, 2])
def test_nothing_is_answered_that_is_not_described(tmp_path: Path, seed: int) -> None:
    server = TokenServer(MODEL, END_ID)
    argv = [sys.executable, "-m", "schemathesis.cli", "run", "--phases", "coverage,fuzzing", "--max-examples", "60"]
    argv += ["--seed", str(seed), "--checks", ",".join(CHECKS), "--no-color"]
    with running(write_repository(tmp_path / "repository"), server.url, tmp_path / "log") as gateway:
        ended = subprocess.run([*argv, f"{gateway.url}/openapi.json"], cwd=tmp_path, capture_output=True, text=True)
        statuses = Counter(line.get("status") for line in gateway.lines())
    server.close()
    assert ended.returncode == 0, ended.stdout[-5000:] + ended.stderr[-1000:]
    found = re.search(r"(\d+) generated, (\d+) passed", ended.stdout)
    assert found is not None
    assert int(found[1]) > 500
    # It did not only knock at the door: many requests were answered by the model.
    assert statuses[200] > 100
    assert not [status for status in statuses if isinstance(status, int) and status >= 500]

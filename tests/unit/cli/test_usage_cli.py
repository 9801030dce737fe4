from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest

from scalellm_trt.cli import command_line
from scalellm_trt.gateway.replies import Usage
from scalellm_trt.gateway.tenants.ledger import Ledger
from scalellm_trt.gateway.tenants.ledger_files import HOUR_S

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = """\
keys: {file: keys}
ledger: {directory: usage}
tenants:
  alice: {price_per_million_input: 1, price_per_million_output: 2}
  bob: {}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration and its ledger: half a million tokens in and out for each tenant, bob's of two days ago."""
    (tmp_path / "usage").mkdir()
    for tenant, age_s in (("bob", 48 * HOUR_S), ("alice", 0)):
        book = Ledger(tmp_path / "usage", lambda age_s=age_s: time.time() - age_s)  # type: ignore[misc]
        book.note(tenant, "m", Usage(prompt_tokens=500_000, completion_tokens=500_000, cached_tokens=3))
        book.close()
    file = tmp_path / "gateway.yaml"
    file.write_text(CONFIG)
    return file


def test_usage_is_a_line_for_each_tenant_and_model(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.run(["usage", "--config", str(config), "--price-per-million-output", "10"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        ["tenant", "model", "requests", "prompt", "cached", "completion", "cost"],
        ["alice", "m", "1", "500000", "3", "500000", "1.5000"],
        ["bob", "m", "1", "500000", "3", "500000", "5.0000"],
        ["total", "2", "1000000", "6", "1000000", "6.5000"],
    ]


@pytest.mark.parametrize("since", ["24h", "1d", time.strftime("%Y-%m-%dT%H", time.gmtime())])
def test_usage_since_a_time_as_json(config: Path, capsys: pytest.CaptureFixture[str], since: str) -> None:
    ledger = str(config.parent / "usage")
    assert command_line.run(["usage", "--ledger", ledger, "--since", since, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(row["tenant"], row["prompt_tokens"], row["cost"]) for row in found["usage"]] == [("alice", 500_000, None)]
    assert found["total"]["requests"] == 1


def test_usage_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.run(["usage", "--ledger", str(tmp_path / "none")]) == 6
    assert "no ledger can be read: No such file" in capsys.readouterr().err
    assert command_line.run(["usage", "--ledger", str(tmp_path), "--since", "monday"]) == 2
    assert "--since: 'monday' is no time\n  Allowed: a day such as" in capsys.readouterr().err
    (tmp_path / "2026-11-25T14.jsonl").write_bytes(b"\n{half")
    assert command_line.run(["usage", "--ledger", str(tmp_path)]) == 0
    assert "1 lines cannot be read and are not counted" in capsys.readouterr().err

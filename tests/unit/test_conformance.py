"""The conformance script counts what fails, and says so by its exit code."""

from __future__ import annotations

import importlib
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING

import pytest

from scripts.conformance import registry
from scripts.conformance.__main__ import GROUPS, main
from scripts.conformance.registry import Check

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from scripts.conformance.target import Target


for _group in GROUPS:
    importlib.import_module(f"scripts.conformance.{_group}")


class _Impostor(BaseHTTPRequestHandler):
    """Knows a model, and answers everything else with 200 and an empty object."""

    def do_GET(self) -> None:
        found = {"object": "list", "data": [{"id": "m", "object": "model", "created": 1, "owned_by": "x"}]}
        self._send(found if self.path.endswith("/models") else {})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self._send({})

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def _send(self, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Impostor)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_server_that_takes_everything_fails_and_each_failure_is_told(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(target: Target) -> None:
        assert target.post(content=b"{").status_code == 400

    (listed,) = [each for each in registry.CHECKS if each.name == "the list holds model objects"]
    report = tmp_path / "report.json"
    monkeypatch.setattr(registry, "CHECKS", [listed])
    assert main(["--base-url", url, "--json", str(report)]) == 0
    registry.CHECKS.append(Check(group="x", name="broken JSON is refused", body=refused))
    assert main(["--base-url", url, "--json", str(report)]) == 8
    outcome = json.loads(report.read_text())
    assert (outcome["num_checks"], outcome["num_failed"], outcome["model"]) == (2, 1, "m")
    assert outcome["checks"][1]["problem"].startswith("AssertionError")
    assert "2 checks: 1 passed, 1 failed" in capsys.readouterr().out


def test_there_are_many_checks_each_with_a_name_of_its_own() -> None:
    names = [(each.group, each.name) for each in registry.CHECKS]
    assert len(names) >= 100
    assert len(set(names)) == len(names)

"""An operator takes a server out of use and puts it back, whichever worker is asked."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.fakes.gateways import END_ID, MODEL, running, write_repository
from tests.fakes.token_server import TokenServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.fakes.gateways import RunningGateway


pytestmark = pytest.mark.integration  # they start processes or servers, and wait


@pytest.fixture
def servers() -> Iterator[list[TokenServer]]:
    servers = [TokenServer(MODEL, END_ID) for _ in range(2)]
    yield servers
    for server in servers:
        server.close()


def _ask(gateway: RunningGateway) -> None:
    body = {"model": MODEL, "prompt": "abc", "max_tokens": 2}
    httpx.post(f"{gateway.url}/v1/completions", json=body, timeout=20).raise_for_status()


def _admin(gateway: RunningGateway, path: str = "", method: str = "GET") -> Any:
    assert gateway.page is not None
    return httpx.request(method, f"{gateway.page.removesuffix('ui/')}admin/servers{path}", timeout=20)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_drained_server_gets_nothing_until_it_is_resumed(
    servers: list[TokenServer], tmp_path: Path, workers: int
) -> None:
    config = tmp_path / "gateway.yaml"
    lines = [f"  s{index}: {{url: '{server.url}'}}" for index, server in enumerate(servers)]
    config.write_text("\n".join(["servers:", *lines, "routing: {policy: round_robin, probe_interval_s: 0.1}", ""]))
    repository = write_repository(tmp_path / "repository")
    options = ("--config", str(config), "--workers", str(workers))
    with running(repository, None, tmp_path / "log", *options) as gateway:
        assert [each["name"] for each in _admin(gateway).json()["servers"]] == ["s0", "s1"]
        refused = _admin(gateway, "/nobody/drain", "POST")
        assert (refused.status_code, "servers here: s0, s1" in refused.text) == (404, True)
        (drained,) = _admin(gateway, "/s0/drain", "POST").json()["servers"]
        assert (drained["state"], drained["url"]) == ("draining", servers[0].url)
        time.sleep(1.5 if workers > 1 else 0)  # each worker looks once a second
        for server in servers:
            server.reset()
        for _ in range(8):
            _ask(gateway)
        assert [len(server.requests) for server in servers] == [0, 8]
        assert _admin(gateway, "/s0/resume", "POST").status_code == 200
        deadline = time.monotonic() + 10
        while not servers[0].requests:
            assert time.monotonic() < deadline
            _ask(gateway)

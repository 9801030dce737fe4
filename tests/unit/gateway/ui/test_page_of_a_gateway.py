"""The page of a real gateway: its own listener, its numbers, and several workers behind it."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from scalellm_trt.triton import ports
from tests.fakes.gateways import MODEL, RunningGateway, running, write_repository

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.fakes.token_server import TokenServer


pytestmark = pytest.mark.integration  # they start processes or servers, and wait


def _state(gateway: RunningGateway) -> Any:
    assert gateway.page is not None
    return httpx.get(f"{gateway.page}state.json").raise_for_status().json()


def _chat(url: str, **fields: object) -> httpx.Response:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}], **fields}
    return httpx.post(f"{url}/v1/chat/completions", json=body)


def _difference(before: Any, after: Any) -> dict[str, int]:
    return {name: after["total"][name] - before["total"][name] for name in before["total"] if name != "errors"}


def test_only_operators_see_the_page(gateway: RunningGateway) -> None:
    assert gateway.page is not None
    assert gateway.page != f"{gateway.url}/ui/"
    assert gateway.page.startswith("http://127.0.0.1:")
    assert httpx.get(gateway.page).text.startswith("<!doctype html>")
    for path in ("/ui", "/ui/", "/ui/state.json", "/admin/drain"):
        assert httpx.get(f"{gateway.url}{path}").status_code == 404


@pytest.fixture
def new_gateway(server: TokenServer, tmp_path: Path) -> Iterator[RunningGateway]:
    """One that has answered nothing that could leave the minute while the test runs."""
    with running(write_repository(tmp_path / "repository"), server.url, tmp_path / "log") as gateway:
        yield gateway


def test_the_state_counts_what_was_done(new_gateway: RunningGateway, server: TokenServer) -> None:
    gateway = new_gateway
    server.step_s = 0.05  # what comes with the first token has no time between
    server.num_reused_blocks = 0
    before = _state(gateway)
    assert _chat(gateway.url, stream=True, max_tokens=5).status_code == 200
    assert _chat(gateway.url, max_tokens=4).status_code == 200
    assert _chat(gateway.url, temperature=-1).status_code == 400
    after = _state(gateway)
    tokens = _difference(before, after)
    assert (tokens["requests"], tokens["generation_tokens"], tokens["cancelled"]) == (2, 9, 0)
    assert tokens["prompt_tokens"] == tokens["told_prompt_tokens"] > 0
    assert after["total"]["errors"]["400"] == before["total"]["errors"].get("400", 0) + 1
    minute = after["minute"]
    assert minute["ttft_ms"]["count"] == before["minute"]["ttft_ms"]["count"] + 1
    assert minute["itl_ms"]["count"] == before["minute"]["itl_ms"]["count"] + 4
    assert minute["ttft_ms"]["p50"] > 0
    assert minute["cached_share"] == 0
    assert after["queue"] == {"running": 0, "waiting": 0, "max_running": 512, "max_waiting": 512}
    (only,) = after["servers"]
    assert (only["url"], only["state"], only["running"]) == (server.url, "ready", 0)
    assert after["models"] == [{"name": MODEL, "can_chat": True, "max_seq_len": 1200}]


def test_what_the_server_did_wrong_is_remembered_and_what_a_client_did_is_not(
    gateway: RunningGateway, server: TokenServer
) -> None:
    server.failure = "the engine died"
    assert _chat(gateway.url).status_code == 500
    (only,) = _state(gateway)["servers"]
    assert "the engine died" in only["last_error"]["message"]
    assert only["last_error"]["time_s"] == pytest.approx(time.time(), abs=60)
    server.failure = None
    assert _chat(gateway.url, presence_penalty=1).status_code == 400
    assert _state(gateway)["servers"][0]["last_error"] == only["last_error"]


def test_a_server_that_is_gone_is_not_ready(gateway: RunningGateway, server: TokenServer) -> None:
    server.is_up = False
    (only,) = _state(gateway)["servers"]
    assert only["state"] == "not ready"


def test_any_worker_speaks_for_all(server: TokenServer, tmp_path: Path) -> None:
    options = ("--workers", "2")
    with running(write_repository(tmp_path / "repository"), server.url, tmp_path / "log", *options) as gateway:
        for _ in range(12):
            # A connection each: the kernel spreads them.
            assert _chat(gateway.url, stream=True, max_tokens=5).status_code == 200
        deadline = time.monotonic() + 10
        while True:
            states = [_state(gateway) for _ in range(6)]
            if all(state["total"]["requests"] == 12 and state["workers"] == 2 for state in states):
                break
            assert time.monotonic() < deadline, states
            time.sleep(0.1)
        assert {state["minute"]["ttft_ms"]["count"] for state in states} == {12}
        assert {state["queue"]["max_running"] for state in states} == {1024}


def test_without_an_admin_listener_there_is_no_page(server: TokenServer, tmp_path: Path) -> None:
    (tmp_path / "gateway.yaml").write_text("admin: {enabled: false}\n")
    options = ("--config", str(tmp_path / "gateway.yaml"))
    with running(write_repository(tmp_path / "repository"), server.url, tmp_path / "log", *options) as gateway:
        assert gateway.page is None
        assert httpx.get(f"{gateway.url}/ui/").status_code == 404
        assert _chat(gateway.url).status_code == 200


def test_an_operator_gets_in_where_no_client_does(server: TokenServer, tmp_path: Path) -> None:
    (port,) = ports.free_ports(1)
    (tmp_path / "gateway.yaml").write_text("limits: {max_connections: 1}\n")
    options = ("--config", str(tmp_path / "gateway.yaml"), "--admin-port", str(port))
    with (
        running(write_repository(tmp_path / "repository"), server.url, tmp_path / "log", *options) as gateway,
        socket.create_connection(("127.0.0.1", int(gateway.url.rpartition(":")[2]))),
    ):
        assert gateway.page == f"http://127.0.0.1:{port}/ui/"
        assert httpx.get(f"{gateway.url}/health/live").status_code == 503
        assert _state(gateway)["schema"] == 1

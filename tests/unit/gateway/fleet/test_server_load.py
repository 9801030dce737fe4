"""Workers know of each other's requests at each server, and forget those of one that has ended."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import httpx
import pytest

from scalellm_trt.gateway.fleet import server_load
from scalellm_trt.gateway.fleet.server_load import OwnLoad, SharedLoads
from tests.fakes.gateways import END_ID, MODEL, running, write_repository
from tests.fakes.token_server import TokenServer

if TYPE_CHECKING:
    from pathlib import Path


def test_all_workers_see_what_each_does_after_a_fork_too() -> None:
    loads = SharedLoads(2)
    one, other = loads.of("a:1", 0), loads.of("a:1", 1)
    one.add(1, 100)
    child = os.fork()
    if not child:
        loads.of("a:1", 1).add(2, 50)
        os._exit(0)
    os.waitpid(child, 0)
    assert (one.num_running(), other.num_tokens(), one.own_running, other.own_running) == (3, 150, 1, 0)
    assert loads.of("b:1", 0).num_running() == 0
    loads.forget(1)
    assert (other.num_running(), other.num_tokens()) == (1, 100)
    one.add(-1, -100)
    assert (other.num_running(), other.num_tokens()) == (0, 0)


def test_where_there_is_no_row_left_each_counts_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_load, "NUM_ROWS", 2)
    loads = SharedLoads(1)
    assert [isinstance(loads.of(url, 0), OwnLoad) for url in ("a:1", "b:1", "c:1", "a:1")] == [
        False,
        False,
        True,
        False,
    ]


@pytest.mark.integration
def test_the_threshold_between_groups_holds_over_all_workers(tmp_path: Path) -> None:
    servers = {name: TokenServer(MODEL, END_ID) for name in ("few", "many")}
    config = tmp_path / "gateway.yaml"
    lines = [f"  {name}: {{url: '{server.url}', group: {name}}}" for name, server in servers.items()]
    groups = "{few: few, many: many, threshold: 4, hysteresis: 1}"
    config.write_text("\n".join(["servers:", *lines, f"routing: {{groups: {groups}}}", ""]))
    for server in servers.values():
        server.is_endless, server.step_s = True, 0.01
    options = ("--config", str(config), "--workers", "3")
    body = {"model": MODEL, "prompt": "abc", "max_tokens": 1000, "stream": True}
    with running(write_repository(tmp_path / "repository"), None, tmp_path / "log", *options) as gateway:
        answers = []
        for _ in range(12):  # each over a connection of its own, at whichever worker
            client = httpx.Client(timeout=30)
            answer = client.send(client.build_request("POST", f"{gateway.url}/v1/completions", json=body), stream=True)
            events = answer.iter_lines()
            next(events)
            answers.append((client, answer, events))  # without the iterator the answer would be closed
        assert {name: len(server.requests) for name, server in servers.items()} == {"few": 4, "many": 8}
        for client, answer, _ in answers:
            answer.close()
            client.close()
    for server in servers.values():
        server.close()

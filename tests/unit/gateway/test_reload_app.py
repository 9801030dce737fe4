"""An operator lets a running gateway read its configuration again: streams go on, what follows is by the new one."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from scalellm_trt.gateway import api_keys
from tests.fakes.gateways import END_ID, MODEL, running, write_repository
from tests.fakes.token_server import TokenServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.fakes.gateways import RunningGateway

pytestmark = pytest.mark.integration  # they start processes or servers, and wait
NAMES = ("acme", "globex")
MANY = 16
"""Of so many requests each of two workers gets one."""


@pytest.fixture
def servers() -> Iterator[list[TokenServer]]:
    servers = [TokenServer(MODEL, END_ID) for _ in range(2)]
    yield servers
    for server in servers:
        server.close()


def _config(directory: Path, *servers: TokenServer, tenants: str = "acme: {}", more: str = "") -> Path:
    api_keys.write(directory / "keys", {name: api_keys.digest(f"sk-{name}") for name in NAMES})
    lines = [f"  s{index}: {{url: '{server.url}'}}" for index, server in enumerate(servers)]
    text = "\n".join(["keys: {file: keys}", "servers:", *lines, "tenants:", f"  {tenants}", more, ""])
    file = directory / "new.yaml"
    file.write_text(text)
    return file.replace(directory / "gateway.yaml")


@contextmanager
def _gateway(directory: Path, config: Path, *options: str) -> Iterator[RunningGateway]:
    repository = write_repository(directory / "repository")
    with running(repository, None, directory / "log", "--config", str(config), *options) as gateway:
        yield gateway


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _reload(gateway: RunningGateway) -> httpx.Response:
    assert gateway.page is not None
    return httpx.post(f"{gateway.page.removesuffix('ui/')}admin/reload", timeout=20)


def _ask(gateway: RunningGateway, tenant: str = "acme", **fields: Any) -> int:
    headers = {"authorization": f"Bearer sk-{tenant}"}
    body = {"model": MODEL, "prompt": "abc", "max_tokens": 2, **fields}
    return httpx.post(f"{gateway.url}/v1/completions", json=body, headers=headers, timeout=20).status_code


class _Stream(threading.Thread):
    """A client whose answer is long enough to be running when the configuration changes."""

    def __init__(self, gateway: RunningGateway) -> None:
        super().__init__()
        self._url, self.has_begun, self.text = gateway.url, threading.Event(), ""

    def run(self) -> None:
        body = {"model": MODEL, "prompt": "abc", "max_tokens": 200, "stream": True}
        headers = {"authorization": "Bearer sk-acme"}
        url = f"{self._url}/v1/completions"
        with httpx.stream("POST", url, json=body, headers=headers, timeout=60) as answer:
            for line in answer.iter_lines():
                self.has_begun.set()
                self.text += line


@pytest.mark.parametrize("workers", [1, 2])
def test_streams_go_on_while_servers_tenants_and_routing_change(
    servers: list[TokenServer], tmp_path: Path, workers: int
) -> None:
    old, new = servers
    old.is_endless, old.step_s = True, 0.01
    config = _config(tmp_path, old)
    with _gateway(tmp_path, config, "--workers", str(workers)) as gateway:
        streams = [_Stream(gateway) for _ in range(6)]
        for stream in streams:
            stream.start()
        assert all(stream.has_begun.wait(30) for stream in streams)
        _config(tmp_path, new, tenants="globex: {models: [another]}", more="limits: {max_streams: 3}")
        told = _reload(gateway).json()
        assert {"servers.s0.url", "tenants.globex.models", "tenants.acme.weight"} <= set(told["changed"])
        assert told["needs_restart"] == ["limits.max_streams"]
        _until(lambda: [_ask(gateway, "globex") for _ in range(MANY)] == [403] * MANY)
        num_before = len(old.requests)
        assert {_ask(gateway) for _ in range(MANY)} == {200}
        assert (len(new.requests) >= MANY, len(old.requests)) == (True, num_before)
        for stream in streams:
            stream.join(60)
            assert stream.text.endswith("data: [DONE]")
            assert '"error"' not in stream.text
        assert "cancelled" not in old.events
        for victim in _workers(gateway) if workers > 1 else ():
            os.kill(victim, signal.SIGKILL)  # a worker that is started again has the new configuration, too
        _until(lambda: [_again(gateway) for _ in range(MANY)] == [403] * MANY)


def _workers(gateway: RunningGateway) -> list[int]:
    import psutil

    return [child.pid for child in psutil.Process(gateway.pid).children()]


def _again(gateway: RunningGateway) -> int:
    try:
        return _ask(gateway, "globex")
    except httpx.TransportError:
        return 0


@pytest.mark.parametrize("workers", [1, 2])
def test_a_wrong_file_is_refused_with_its_line_and_hangup_reads_the_right_one(
    servers: list[TokenServer], tmp_path: Path, workers: int
) -> None:
    config = _config(tmp_path, servers[0])
    with _gateway(tmp_path, config, "--workers", str(workers)) as gateway:
        _config(tmp_path, servers[1], more="routing: {polity: prefix}")
        refused = _reload(gateway)
        assert refused.status_code == 400
        assert "gateway.yaml:6: routing.polity: " in refused.json()["error"]["message"]
        os.kill(gateway.pid, signal.SIGHUP)
        wrong = "the configuration of before stays: the new one is wrong"
        _until(lambda: sum(line["message"] == wrong for line in gateway.lines()) == 2)
        assert _ask(gateway) == 200
        assert not servers[1].requests
        _config(tmp_path, servers[1])
        os.kill(gateway.pid, signal.SIGHUP)
        _until(lambda: _ask(gateway) == 200 and bool(servers[1].requests))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_closed_terminal_still_ends_a_gateway(servers: list[TokenServer], tmp_path: Path, workers: int) -> None:
    config, repository = _config(tmp_path, servers[0]), write_repository(tmp_path / "repository")
    argv = [sys.executable, "-m", "scalellm_trt", "gateway", "--config", str(config), "--repository", str(repository)]
    terminal, inside = pty.openpty()
    with (tmp_path / "log").open("wb") as errors:
        child = subprocess.Popen(
            [sys.executable, "-c", _IN_TERMINAL, os.ttyname(inside), *argv, "--port", "0", "--workers", str(workers)],
            stdout=subprocess.PIPE,
            stderr=errors,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    assert child.stdout is not None
    with child.stdout:
        url = re.search(r"http://[0-9.:]+", os.read(child.stdout.fileno(), 65536).decode())
        assert url is not None
        httpx.get(f"{url.group()}/health/live", timeout=20).raise_for_status()
        os.kill(child.pid, signal.SIGHUP)
        _until(lambda: "configuration read again" in (tmp_path / "log").read_text())
        assert child.poll() is None
        os.close(inside)
        os.close(terminal)  # the other end hangs up
        assert child.wait(30) == 0


_IN_TERMINAL = """\
import fcntl, os, sys, termios
fcntl.ioctl(os.open(sys.argv[1], os.O_RDWR), termios.TIOCSCTTY, 0)
os.execv(sys.argv[2], sys.argv[2:])
"""

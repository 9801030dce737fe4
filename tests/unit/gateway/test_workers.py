"""Several workers behind one port, as processes: they share it, count together, come back, and leave nothing behind."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import httpx
import psutil
import pytest

from tests.fakes.gateways import MODEL, RunningGateway, running, write_repository

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.fakes.token_server import TokenServer

pytestmark = pytest.mark.integration  # forks have to be waited for
NUM_WORKERS = 2


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_repository(tmp_path_factory.mktemp("workers") / "repository")


@pytest.fixture
def gateway(repository: Path, server: TokenServer, tmp_path: Path) -> Iterator[RunningGateway]:
    with running(repository, server.url, tmp_path / "log", "--workers", str(NUM_WORKERS)) as gateway:
        yield gateway
        workers = psutil.Process(gateway.pid).children(recursive=True)
    assert not [worker for worker in workers if worker.is_running()]


def _until(condition: Callable[[], bool], timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _workers(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children()


def _ask(gateway: RunningGateway) -> int:
    """Ask over a connection of its own: the kernel chooses the worker anew."""
    return httpx.post(f"{gateway.url}/v1/completions", json={"model": MODEL, "prompt": "abc"}).status_code


def _metric(gateway: RunningGateway, name: str) -> float:
    lines = httpx.get(f"{gateway.url}/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.split("{")[0].split(" ")[0] == name)


def test_workers_share_the_port_and_count_together(gateway: RunningGateway) -> None:
    workers = _workers(gateway.pid)
    assert len(workers) == NUM_WORKERS
    assert {_ask(gateway) for _ in range(24)} == {200}
    for _ in range(4):
        assert _metric(gateway, "scalellm_request_success_total") == 24
        assert _metric(gateway, "scalellm_e2e_request_latency_seconds_count") == 24
    assert _metric(gateway, "scalellm_num_requests_running") == 0
    assert _metric(gateway, "scalellm_backend_up") == 1


def test_a_crashed_worker_comes_back_and_goes_on_counting(gateway: RunningGateway, server: TokenServer) -> None:
    assert {_ask(gateway) for _ in range(12)} == {200}
    for number in range(3):
        victim = _workers(gateway.pid)[0]
        victim.kill()
        _until(lambda victim=victim: len(_alive(gateway, victim)) == NUM_WORKERS)  # type: ignore[misc]
        assert sum("a worker ended" in str(line["message"]) for line in gateway.lines()) == number + 1
    assert {_ask(gateway) for _ in range(12)} == {200}
    assert _metric(gateway, "scalellm_request_success_total") == 24
    assert _metric(gateway, "scalellm_num_requests_running") == 0
    backoffs = [line["again_in_s"] for line in gateway.lines() if line["message"] == "a worker ended"]
    assert backoffs in ([0.1, 0.2, 0.4], [0.1, 0.1, 0.2], [0.1, 0.2, 0.1])


def test_what_a_crashed_worker_was_doing_is_forgotten(gateway: RunningGateway, server: TokenServer) -> None:
    server.is_endless, server.step_s = True, 0.01
    body = {"model": MODEL, "prompt": "abc", "stream": True, "max_tokens": 1000}
    with httpx.stream("POST", f"{gateway.url}/v1/completions", json=body) as answer:
        lines = answer.iter_lines()
        next(lines)
        assert _metric(gateway, "scalellm_num_requests_running") == 1
        for worker in _workers(gateway.pid):
            worker.kill()
        with pytest.raises(httpx.RemoteProtocolError):
            list(lines)
    _until(lambda: sum(line["message"] == "a worker ended" for line in gateway.lines()) == NUM_WORKERS)
    _until(lambda: len(_workers(gateway.pid)) == NUM_WORKERS)
    assert server.has_left.wait(5)
    server.is_endless, server.step_s = False, 0.0
    _until(lambda: _is_up(gateway))
    assert _metric(gateway, "scalellm_num_requests_running") == 0


def _is_up(gateway: RunningGateway) -> bool:
    try:
        return httpx.get(f"{gateway.url}/health").status_code == 200
    except httpx.ConnectError:
        return False


def _alive(gateway: RunningGateway, victim: psutil.Process) -> list[psutil.Process]:
    return [worker for worker in _workers(gateway.pid) if worker.pid != victim.pid]


def test_workers_end_with_a_parent_that_was_killed(repository: Path, server: TokenServer, tmp_path: Path) -> None:
    with _started(repository, server, tmp_path) as child:
        workers = _workers(child.pid)
        child.kill()
        child.wait()
        _until(lambda: not any(worker.is_running() and worker.status() != "zombie" for worker in workers))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_open_answers_end_before_the_workers(
    repository: Path, server: TokenServer, tmp_path: Path, number: signal.Signals
) -> None:
    server.step_s = 0.05
    with _started(repository, server, tmp_path) as child:
        url = (tmp_path / "out").read_text().split()[1].removesuffix("/v1")
        body = {"model": MODEL, "prompt": "a" * 20, "stream": True, "max_tokens": 100}
        with httpx.stream("POST", f"{url}/v1/completions", json=body) as answer:
            lines = answer.iter_lines()
            next(lines)
            # As a terminal's Ctrl-C: everybody of the group gets it.
            os.killpg(child.pid, number)
            assert list(lines)[-2] == "data: [DONE]"
        assert child.wait(timeout=10) == 0


def test_a_taken_port_is_found_although_workers_share_theirs(
    repository: Path, gateway: RunningGateway, server: TokenServer
) -> None:
    port = gateway.url.rpartition(":")[2]
    argv = [sys.executable, "-m", "scalellm_trt", "gateway", "--repository", str(repository), "--port", port]
    done = subprocess.run([*argv, "--workers", "2"], capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 2
    assert f"127.0.0.1:{port} cannot be listened on" in done.stderr
    assert "--port" in done.stderr


@contextlib.contextmanager
def _started(repository: Path, server: TokenServer, directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    argv = [sys.executable, "-m", "scalellm_trt", "gateway", "--repository", str(repository), "--url", server.url]
    with (directory / "out").open("wb") as out, (directory / "log").open("wb") as log:
        options = ("--port", str(_free_port()), "--admin-port", "0", "--workers", str(NUM_WORKERS))
        child = subprocess.Popen([*argv, *options], stdout=out, stderr=log, start_new_session=True)
    try:
        _until(lambda: b"\n" in (directory / "out").read_bytes())
        yield child
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

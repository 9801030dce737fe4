from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from scalellm_trt.errors import ArtefactError, ServerNotReadyError
from scalellm_trt.process import watchdog
from scalellm_trt.triton import ports, server
from scalellm_trt.triton.binary import ServerBinary
from scalellm_trt.triton.server_command import ServerOptions, new_shm_prefix
from tests.fakes.processes import has_ended

FAKE = Path(__file__).parents[2] / "fakes" / "fake_tritonserver.py"


def options_for(directory: Path, behaviour: str) -> ServerOptions:
    directory.mkdir(exist_ok=True)
    (directory / "behaviour").write_text(behaviour)
    http_port, grpc_port, metrics_port = ports.free_ports(3)
    return ServerOptions(
        repository=directory,
        shm_prefix=new_shm_prefix(),
        http_port=http_port,
        grpc_port=grpc_port,
        metrics_port=metrics_port,
        exit_timeout_s=0,
    )


def start(directory: Path, behaviour: str) -> server.RunningServer:
    return server.start(
        ServerBinary(executable=FAKE, origin="path"),
        options_for(directory / "repo", behaviour),
        log=directory / "logs" / "server.log",
        verify=lambda root: None,
    )


def stub_pid(directory: Path) -> int:
    return int((directory / "repo" / "stub_pid").read_text())


def test_a_ready_server_tells_its_models_and_stops_with_its_children(tmp_path: Path) -> None:
    activities: list[str] = []
    with start(tmp_path, "ready") as running:
        endpoint = running.wait_ready(10, lambda activity, elapsed_s: activities.append(activity))
        assert endpoint.model_names == ("echo",)
        assert endpoint.pid == running.pid
        stub = stub_pid(tmp_path)
        assert not has_ended(stub, within_s=0)
    assert has_ended(endpoint.pid, within_s=0)
    assert has_ended(stub)
    assert activities


def test_shared_memory_that_a_server_left_is_removed(tmp_path: Path) -> None:
    with start(tmp_path, "ready") as running:
        running.wait_ready(10)
        left = watchdog.SHARED_MEMORY / f"{running._options.shm_prefix}left"
        left.touch()
    assert not left.exists()


def test_a_crash_says_why_shows_the_log_and_names_it(tmp_path: Path) -> None:
    with start(tmp_path, "crash") as running, pytest.raises(ServerNotReadyError) as caught:
        running.wait_ready(10)
    text = str(caught.value)
    assert text.startswith("tritonserver ended with exit code 1 before it was ready")
    assert "the model echo failed to load: Internal: no engine" in text
    assert "| error: creating server" in text
    assert "| | a |" not in text
    assert f"Log: {tmp_path / 'logs' / 'server.log'}" in text


def test_a_server_that_is_not_ready_in_time_is_stopped(tmp_path: Path) -> None:
    with start(tmp_path, "hang") as running:
        while not (tmp_path / "repo" / "stub_pid").exists():
            time.sleep(0.01)
        with pytest.raises(ServerNotReadyError, match=r"not ready within 0\.5 s: loading echo"):
            running.wait_ready(0.5)
        assert has_ended(running.pid, within_s=0)
    assert has_ended(stub_pid(tmp_path))


def test_a_server_that_ignores_sigterm_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "KILL_GRACE_S", 0.2)
    with start(tmp_path, "stubborn") as running:
        running.wait_ready(10)
    assert has_ended(running.pid, within_s=0)
    assert has_ended(stub_pid(tmp_path))


def test_a_server_that_is_killed_while_it_serves_is_reported_and_its_stub_ended(tmp_path: Path) -> None:
    with start(tmp_path, "ready") as running:
        running.wait_ready(10)
        os.kill(running.pid, signal.SIGKILL)
        with pytest.raises(ServerNotReadyError, match="tritonserver was killed by SIGKILL"):
            running.wait()
    assert has_ended(stub_pid(tmp_path))


def test_waiting_ends_without_an_error_when_the_server_ends_in_order(tmp_path: Path) -> None:
    with start(tmp_path, "ready") as running:
        running.wait_ready(10)
        os.kill(running.pid, signal.SIGTERM)
        running.wait()


def test_a_port_in_use_is_named_with_its_option_and_free_ones_are_offered(tmp_path: Path) -> None:
    options = options_for(tmp_path / "repo", "ready")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", options.grpc_port))
        taken.listen()
        with pytest.raises(ServerNotReadyError) as caught:
            server.start(
                ServerBinary(executable=FAKE, origin="path"), options, log=tmp_path / "log", verify=lambda root: None
            )
    assert f"127.0.0.1:{options.grpc_port} (--grpc-port) is in use by" in str(caught.value)
    assert str(os.getpid()) in str(caught.value)
    assert f"--http-port {options.http_port} --grpc-port" in str(caught.value)
    assert not (tmp_path / "log").exists()


def test_a_repository_that_is_not_as_published_is_refused_before_the_start(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="there is no model repository here"):
        server.start(
            ServerBinary(executable=FAKE, origin="path"),
            ServerOptions(repository=tmp_path / "nowhere", shm_prefix="x"),
            log=tmp_path / "log",
        )


def test_the_log_of_the_server_before_is_kept(tmp_path: Path) -> None:
    for _ in range(2):
        with start(tmp_path, "crash") as running, pytest.raises(ServerNotReadyError):
            running.wait_ready(10)
    assert sorted(path.name for path in (tmp_path / "logs").iterdir()) == ["server.log", "server.log.1"]


def test_kill_9_of_the_parent_leaves_no_server_no_stub_and_no_watchdog(tmp_path: Path) -> None:
    options_for(tmp_path / "repo", "ready")
    script = textwrap.dedent(f"""
        import sys, time
        sys.path.insert(0, {str(Path(__file__).parents[3])!r})
        from pathlib import Path
        from tests.unit.triton.test_server import start
        running = start(Path({str(tmp_path)!r}), "ready")
        running.wait_ready(10)
        print(running.pid, running._guard.pid, flush=True)
        time.sleep(60)
    """)
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = [*map(int, parent.stdout.readline().split()), stub_pid(tmp_path)]
        assert not any(has_ended(pid, within_s=0) for pid in pids)
        parent.kill()
    for pid in pids:
        assert has_ended(pid)


def test_the_watchdog_waits_as_long_as_the_parent_lives(tmp_path: Path) -> None:
    with start(tmp_path, "ready") as running:
        running.wait_ready(10)
        time.sleep(0.3)
        assert running._guard.poll() is None
        assert running._child.poll() is None

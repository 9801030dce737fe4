"""server_image: a tritonserver in a (fake) container is served, watched, and nothing of it is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from scalellm_trt.backends.container import ENGINES
from scalellm_trt.errors import ServerNotReadyError
from scalellm_trt.triton import ports, server, server_image, serving
from scalellm_trt.triton.server_command import ServerOptions
from tests.fakes.processes import has_ended
from tests.fakes.served_images import machine, publish

if TYPE_CHECKING:
    from scalellm_trt.backends.container import EngineName
    from tests.fakes.gpu_bench import Bench

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]


def start(root: Path, engine: EngineName) -> server.RunningServer:
    """Start what `serve --container` starts."""
    http_port, grpc_port, metrics_port = ports.free_ports(3)
    found = server_image.find(root, engine, root.parent / "probe.log")
    options = ServerOptions(
        repository=root, shm_prefix=f"scalellm_{os.getpid()}_", http_port=http_port, grpc_port=grpc_port,
        metrics_port=metrics_port,
    )  # fmt: skip
    _, planned = serving.prepare(found, options, state_dir=root.parent / "state", wants_orchestrator=False)
    return server.start(found, options, log=root.parent / "server.log", launch=planned)


def containers(made: Bench) -> list[Path]:
    return list(made.record.parent.glob("*.container"))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_repository_is_served_by_its_image_and_nothing_is_left(
    engine: EngineName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = machine(tmp_path, monkeypatch, engine=engine)
    with start(publish(tmp_path), engine) as running:
        assert running.wait_ready(60).model_names == ("llama", "llama_engine")
        [process] = containers(made)
        pid = int(process.read_text())
        assert not has_ended(pid)
    assert has_ended(pid)
    assert containers(made) == []
    assert made.commands()[-1] == [engine, "rm", "--force", process.stem]


def test_a_server_that_ignores_its_end_and_one_whose_client_was_killed_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = machine(tmp_path, monkeypatch)
    with start(publish(tmp_path), "docker") as running:
        running.wait_ready(60)
        [process] = containers(made)
        pid = int(process.read_text())
        os.killpg(running.pid, signal.SIGKILL)
        time.sleep(0.2)
        assert not has_ended(pid)
        with pytest.raises(ServerNotReadyError, match="was killed by SIGKILL"):
            running.wait()
    assert has_ended(pid)
    assert containers(made) == []


@pytest.mark.parametrize("is_stubborn", [False, True])
def test_kill_9_leaves_no_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_stubborn: bool) -> None:
    made = machine(tmp_path, monkeypatch)
    if is_stubborn:
        monkeypatch.setenv("FAKE_STUBBORN", "1")
    root = publish(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(ROOT), os.environ["PYTHONPATH"])))
    http_port, grpc_port, metrics_port = ports.free_ports(3)
    argv = [sys.executable, "-m", "scalellm_trt", "serve", "--container", "--json", "--repository", str(root)]
    argv += ["--builds", str(tmp_path / "builds"), "--http-port", str(http_port), "--grpc-port", str(grpc_port)]
    argv += ["--exit-timeout", "0"]
    child = subprocess.Popen([*argv, "--metrics-port", str(metrics_port)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    with child.stdout:
        assert json.loads(child.stdout.readline())["model_names"] == ["llama", "llama_engine"]
    [process] = containers(made)
    pid = int(process.read_text())
    child.kill()
    child.wait()
    deadline = time.monotonic() + 20
    while containers(made) or not has_ended(pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_container_that_does_not_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(tmp_path, monkeypatch)
    monkeypatch.setenv("FAKE_ANSWERS", "none")
    with start(publish(tmp_path), "docker") as running, pytest.raises(ServerNotReadyError) as caught:
        running.wait_ready(60)
    assert caught.value.exit_code == 7
    assert "the model llama failed to load: Internal: no kernel image is available" in caught.value.message

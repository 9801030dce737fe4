"""`up`: one command to an OpenAI API, one Ctrl-C back; a part that fails takes the others with it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx
import psutil
import pytest

from tests.integration.conftest import RECIPE, ROOT, Workspace, free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.integration
READY_S = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Up:
    """A running `up`."""

    child: subprocess.Popen[str]
    url: str
    lines: list[str]
    errors: Path

    def parts(self, name: str) -> list[psutil.Process]:
        """Return the processes below it that have `name` in their command line."""
        below = psutil.Process(self.child.pid).children(recursive=True)
        return [part for part in below if name in " ".join(part.cmdline())]

    def end(self, timeout_s: float = 90) -> int:
        """Wait until it ends; return its exit code, once nothing that it started is left."""
        below = psutil.Process(self.child.pid).children(recursive=True)
        code = self.child.wait(timeout_s)
        _, alive = psutil.wait_procs(below, timeout=30)
        assert not alive
        return code


def _argv(workspace: Workspace, *options: str) -> list[str]:
    grpc_port, http_port, metrics_port = free_ports(3)
    ports = ["--grpc-port", str(grpc_port), "--http-port", str(http_port), "--metrics-port", str(metrics_port)]
    return [*workspace.command("up", str(RECIPE)), *ports, *options]


def _patient(directory: Path) -> Path:
    """Write a configuration for a machine that others use too: an answer may take its time."""
    config = directory / "gateway.yaml"
    config.write_text("limits:\n  shutdown_timeout_s: 60\n")
    return config


@contextlib.contextmanager
def _running(workspace: Workspace, directory: Path) -> Iterator[Up]:
    (port,) = free_ports(1)
    errors = directory / "errors"
    with errors.open("wb") as stderr:
        argv = _argv(workspace, "--port", str(port), "--admin-port", "0", "--config", str(_patient(directory)))
        child = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=stderr, text=True, cwd=ROOT)
    assert child.stdout is not None
    try:
        lines = [child.stdout.readline() for _ in range(5)]
        assert lines[-1], errors.read_text()
        yield Up(child=child, url=f"http://127.0.0.1:{port}", lines=lines, errors=errors)
    finally:
        child.terminate()
        child.wait(60)
        child.stdout.close()


def test_the_line_that_it_prints_works_and_ctrl_c_lets_open_answers_end(built: Workspace, tmp_path: Path) -> None:
    with _running(built, tmp_path) as up:
        port = up.url.rpartition(":")[2]
        assert up.lines[0] == f"ready: smollm2-135m-cpu at http://localhost:{port}/v1\n"
        assert f"""curl -XPOST localhost:{port}/predict -d '{{"text": "Hello"}}'""" in up.lines[-1]
        curl = ["curl", "-sS", "-XPOST", f"localhost:{port}/predict", "-d", '{"text": "Hello"}']
        answer = json.loads(subprocess.run(curl, check=True, capture_output=True, text=True).stdout)
        assert answer.keys() == {"generated_text"}
        assert answer["generated_text"]
        assert "nothing changed, 0 stages run" in up.errors.read_text()

        body = {"model": "smollm2-135m-cpu", "prompt": "Once", "max_tokens": 100, "stream": True, "ignore_eos": True}
        with httpx.stream("POST", f"{up.url}/v1/completions", json=body, timeout=60) as stream:
            lines = stream.iter_lines()
            next(lines)
            ended = _noting_order(up)
            up.child.send_signal(signal.SIGINT)
            assert list(lines)[-2] == "data: [DONE]"
        assert up.end() == 0
        ended.join()
        assert "stopping: open answers may end" in up.errors.read_text()


def _noting_order(up: Up) -> threading.Thread:
    """Check in the background that the gateway ends before the server does."""
    gateway = up.parts("scalellm_trt gateway")[0]
    server = up.parts("tritonserver")[0]

    def watch() -> None:
        gateway.wait(90)
        assert server.is_running()

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


@pytest.mark.parametrize("part", ["scalellm_trt gateway", "bin/tritonserver"])
def test_a_part_that_dies_ends_the_others(built: Workspace, tmp_path: Path, part: str) -> None:
    with _running(built, tmp_path) as up:
        below = psutil.Process(up.child.pid).children(recursive=True)
        up.parts(part)[0].kill()
        assert up.child.wait(60) == 7
        assert not psutil.wait_procs(below, timeout=30)[1]
        assert "was killed by SIGKILL" in up.errors.read_text()


def test_kill_9_leaves_nothing_behind(built: Workspace, tmp_path: Path) -> None:
    with _running(built, tmp_path) as up:
        below = psutil.Process(up.child.pid).children(recursive=True)
        os.kill(up.child.pid, signal.SIGKILL)
        assert not psutil.wait_procs(below, timeout=60)[1]


def test_what_cannot_work_is_said_before_anything_is_built(built: Workspace, tmp_path: Path) -> None:
    started = time.monotonic()
    (tmp_path / "gateway.yaml").write_text("listen:\n  prt: 1\n")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for options, code, message in (
            (("--port", port), 2, f"127.0.0.1:{port} cannot be listened on"),
            (("--config", str(tmp_path / "gateway.yaml")), 2, "listen.prt: is not a key of listen"),
            (("--grpc-port", port), 7, f"127.0.0.1:{port} (--grpc-port) is in use"),
        ):
            argv = [*_argv(built), "--port", str(free_ports(1)[0]), "--admin-port", "0", *options]
            done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)
            assert (done.returncode, message in done.stderr) == (code, True), done.stderr
    assert time.monotonic() - started < 60
    wrong = [sys.executable, "-m", "scalellm_trt", "up", str(tmp_path / "none.yaml"), "--port", str(free_ports(1)[0])]
    done = subprocess.run(
        [*wrong, *_argv(built)[-6:]], capture_output=True, text=True, timeout=60, check=False, cwd=ROOT
    )
    assert done.returncode == 2

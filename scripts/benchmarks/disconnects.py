"""Let a thousand clients leave the gateway at random moments: nothing of them may stay.

    scalellm-trt build recipes/cpu.yaml
    python -m scripts.benchmarks.disconnects [--clients 1000] [--at-once 16] [--seed 1] [--workers 1]

A tritonserver and a gateway of its own, on free ports. Each client sends one request of 400 tokens (two of three as a
stream) and leaves within a second of its coming, at a moment and in a manner that a seeded generator draws: in the
middle of the headers or of the body, while it waits, in the middle of the stream; by closing or by a reset. The same
crowd comes twice; the second time counts. Exit code 8 unless, within a second of the last leaving, the gateway has no
request running or waiting and the engine's processes are idle, and then: no connection of a client is left, no more
than --channels connections to the server, no more event-loop tasks and open files than before the crowd, memory
(RssAnon of the gateway) has grown by no more than --max-growth-mib, and a request is answered.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import json
import random
import re
import socket
import struct
import sys
import tempfile
import time
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from scalellm_trt.gateway import child
from scripts.benchmarks.sides import memory_samples, served_model, surroundings

EXIT_MISSED = 8
MIB = 1 << 20
WITHIN_S = 1.0
IDLE_SHARE = 0.2
"""Of one core, over `IDLE_WINDOW_S`: a server that only waits takes less."""
IDLE_WINDOW_S = 0.2
MOMENTS = ("headers", "body", "answer", "answer", "answer", "answer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """When and how one client leaves."""

    moment: str
    stays_s: float
    is_reset: bool
    is_stream: bool
    prompt: str


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What the gateway holds."""

    num_running: float
    num_waiting: float
    num_tasks: float
    num_files: int
    num_client_connections: int
    num_server_connections: int
    anonymous_mib: float


class Gateway:
    """The gateway as seen from outside."""

    def __init__(self, url: str, pid: int, server_port: int) -> None:
        """Take one that listens at `url`; `server_port` is the server's."""
        self.url = url
        self.host, port = url.removeprefix("http://").split(":")
        self.port = int(port)
        self._process, self._server_port = psutil.Process(pid), server_port

    def metrics(self) -> dict[str, float]:
        """Return each metric's sum over its labels."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        sums: collections.Counter[str] = collections.Counter()
        for name, value in re.findall(r"^(\w+)(?:\{.*\})? (\S+)$", text, re.MULTILINE):
            sums[name] += float(value)  # type: ignore[assignment]
        return dict(sums)

    def state(self) -> State:
        """Look at it now."""
        metrics = self.metrics()
        time.sleep(0.2)  # the connection that was asked by is no client's
        processes = [self._process, *self._process.children(recursive=True)]
        connections = [one for process in processes for one in process.net_connections("tcp") if one.raddr]
        to_server = sum(one.raddr.port == self._server_port for one in connections)
        return State(
            num_running=metrics.get("scalellm_num_requests_running", 0),
            num_waiting=metrics.get("scalellm_num_requests_waiting", 0),
            num_tasks=metrics["scalellm_event_loop_tasks"],
            num_files=sum(process.num_fds() for process in processes) - len(connections),
            num_client_connections=len(connections) - to_server,
            num_server_connections=to_server,
            anonymous_mib=memory_samples.read(self._process.pid).anonymous / MIB,
        )


def draw(seed: int, num_clients: int) -> list[Client]:
    """Return the crowd of `seed`."""
    dice = random.Random(seed)
    return [
        Client(
            moment=dice.choice(MOMENTS),
            stays_s=dice.random(),
            is_reset=dice.random() < 0.5,
            is_stream=dice.random() < 2 / 3,
            # Short: a step of the engine cannot be interrupted; one full of prompts takes most of a second on a CPU.
            prompt=f"{dice.randrange(1000)}",
        )
        for _ in range(num_clients)
    ]


async def visit(client: Client, gateway: Gateway, model: str) -> str:
    """Come, ask and leave; return what was seen of the answer."""
    fields = {"model": model, "prompt": client.prompt, "max_tokens": 400, "ignore_eos": True}
    body = json.dumps({**fields, "stream": client.is_stream}).encode()
    head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    whole = head + body
    cut = {"headers": len(head) // 2, "body": len(head) + len(body) // 2, "answer": len(whole)}[client.moment]
    reader, writer = await asyncio.open_connection(gateway.host, gateway.port)
    seen = b""
    try:
        writer.write(whole[:cut])
        leaves_s = time.monotonic() + client.stays_s
        while (left_s := leaves_s - time.monotonic()) > 0:
            piece = await asyncio.wait_for(reader.read(65536), left_s)
            if not piece:
                break
            seen += piece
    except (asyncio.TimeoutError, ConnectionError):
        pass
    finally:
        if client.is_reset:
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.close()
    return seen.split(b"\r\n")[0].decode() or f"left while sending its {client.moment}, or waiting"


async def crowd(clients: list[Client], gateway: Gateway, model: str, at_once: int) -> collections.Counter[str]:
    """Let all come, so many at a time."""
    places = asyncio.Semaphore(at_once)

    async def one(client: Client) -> str:
        async with places:
            return await visit(client, gateway, model)

    return collections.Counter(await asyncio.gather(*map(one, clients)))


def seconds_until_empty(gateway: Gateway, timeout_s: float = 30.0) -> float:
    """Return how long it took until no request ran or waited any more."""
    started = time.monotonic()
    while time.monotonic() - started < timeout_s:
        metrics = gateway.metrics()
        names = ("scalellm_num_requests_running", "scalellm_num_requests_waiting")
        if not any(metrics.get(name, 0) for name in names):
            break
        time.sleep(0.02)
    return time.monotonic() - started


def seconds_until_idle(server_pid: int, left_s: float, timeout_s: float = 30.0) -> float:
    """Return how long after `left_s` the server's processes began to do nothing."""
    while True:
        began_s, before = time.monotonic(), served_model.cpu_s(server_pid)
        time.sleep(IDLE_WINDOW_S)
        share = (served_model.cpu_s(server_pid) - before) / (time.monotonic() - began_s)
        if share < IDLE_SHARE or began_s - left_s > timeout_s:
            return began_s - left_s


def problems(before: State, after: State, empty_s: float, idle_s: float, limits: argparse.Namespace) -> list[str]:
    """Say what stayed."""
    found = []
    if empty_s > WITHIN_S:
        found.append(f"requests ran or waited for {empty_s:.2f} s after the last client had left")
    if idle_s > WITHIN_S:
        found.append(f"the engine worked for {idle_s:.2f} s after the last client had left")
    for name in ("num_running", "num_waiting", "num_client_connections"):
        if getattr(after, name):
            found.append(f"{name}: {getattr(after, name):g}")
    if after.num_server_connections > limits.channels * limits.workers:
        found.append(f"{after.num_server_connections} connections to the server")
    for name in ("num_tasks", "num_files"):
        if getattr(after, name) > getattr(before, name):
            found.append(f"{name}: {getattr(before, name):g} before, {getattr(after, name):g} after")
    if after.anonymous_mib - before.anonymous_mib > limits.max_growth_mib:
        found.append(f"memory: {before.anonymous_mib:.1f} MiB before, {after.anonymous_mib:.1f} after")
    return found


def run(arguments: argparse.Namespace, directory: Path) -> int:
    model = served_model.find(arguments.repository, arguments.model)
    options = ["--repository", str(arguments.repository), "--port", "0", "--channels", str(arguments.channels)]
    options += ["--workers", str(arguments.workers)]
    with (
        served_model.running(arguments.repository, directory / "server.log") as server,
        child.start([*options, "--url", server.url], log=directory / "gateway.log", stop_timeout_s=20) as process,
    ):
        url, server_port = process.wait_ready(60), int(server.url.rpartition(":")[2])
        gateway = Gateway(url, process.pid, server_port)
        clients = draw(arguments.seed, arguments.clients)
        asyncio.run(crowd(clients, gateway, model.name, arguments.at_once))
        seconds_until_idle(server.pid, time.monotonic())
        time.sleep(2)
        before, counted = gateway.state(), gateway.metrics()
        started = time.monotonic()
        seen = asyncio.run(crowd(clients, gateway, model.name, arguments.at_once))
        left_s = time.monotonic()
        empty_s = seconds_until_empty(gateway)
        idle_s = seconds_until_idle(server.pid, left_s)
        time.sleep(2)
        after, count = gateway.state(), gateway.metrics()
        found = problems(before, after, empty_s, idle_s, arguments)
        if not _answers(url, model.name):
            found.append("no answer any more")
        cancelled = "scalellm_request_cancelled_total"
        report = {
            "clients": len(clients),
            "seconds": round(left_s - started, 1),
            "seen": dict(seen.most_common()),
            "cancelled": count.get(cancelled, 0) - counted.get(cancelled, 0),
            "empty_after_s": round(empty_s, 3),
            "engine_idle_after_s": round(idle_s, 3),
            "refusals": _refusals(process.log),
            "before": asdict(before),
            "after": asdict(after),
            "problems": found,
            "environment": surroundings.describe(seed=arguments.seed, at_once=arguments.at_once),
        }
    print(json.dumps(report, indent=2))
    return EXIT_MISSED if found else 0


def _refusals(log: Path) -> dict[str, int]:
    """Count what clients that were refused were told."""
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    return dict(collections.Counter(f"{line.get('status')}: {line['error']}" for line in lines if "error" in line))


def _answers(url: str, model: str) -> bool:
    body = json.dumps({"model": model, "prompt": "One, two,", "max_tokens": 4}).encode()
    with urllib.request.urlopen(f"{url}/v1/completions", data=body, timeout=60) as answer:
        return json.loads(answer.read())["usage"]["completion_tokens"] == 4  # type: ignore[no-any-return]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repository", type=Path, default=Path("triton_repo"))
    parser.add_argument("--model")
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--at-once", type=int, default=16)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--channels", type=int, default=4)
    parser.add_argument("--max-growth-mib", type=float, default=4.0)
    with tempfile.TemporaryDirectory() as directory:
        sys.exit(run(parser.parse_args(), Path(directory)))


if __name__ == "__main__":
    main()

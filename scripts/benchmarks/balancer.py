#!/usr/bin/env python3
"""A load of 1 to 128 clients and back over two groups of real servers, balanced, and over either group alone.

    python -m scripts.benchmarks.balancer [--level-s 4] [--plot docs/images/balancer-run.svg]

Four real tritonservers with a synthetic model, a gateway in front for each side. The speeds of servers are chosen:

    tp        one server whose step takes 8 ms and 0.6 ms more for each request: fast alone, slow with many
    replicas  three servers whose step takes 30 ms however many requests share it

as a tensor-parallel server and replicas of few cards have them; what is measured is what the gateway makes of that.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
import uvloop

from scripts.benchmarks.sides import gateways, paced_repository, ramp, served_model, surroundings
from scripts.benchmarks.sides.paced_repository import Pace

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

FEW, MANY = "tp", "replicas"
PACES = {FEW: Pace(step_ms=8, request_ms=0.6), MANY: Pace(step_ms=30)}
NUM_SERVERS = {FEW: 1, MANY: 3}
MODEL, TOKENS = "paced", 40
THRESHOLD, HYSTERESIS = 36, 8
"""Both groups make the same tokens/s with some 36 requests: n / (8 + 0.6 n) = n / 30."""
TIMEOUT_S = 60


class Clients:
    """As many clients as the ramp wants, one request after the other each."""

    def __init__(self, url: str, level_s: float) -> None:
        """Prepare to ask at `url`; `level_s` is the length of a step of the ramp."""
        self._host, _, port = url.removeprefix("http://").rpartition(":")
        self._port, self._level_s = int(port), level_s
        self._began_s = 0.0
        self._number = 0
        self.seen: dict[str, tuple[float, float, float]] = {}

    async def run(self) -> None:
        """Play the ramp to its end."""
        self._began_s = time.monotonic()
        tasks: dict[int, asyncio.Task[None]] = {}
        while self._now_s() < self._level_s * len(ramp.LEVELS):
            for client in range(self._wanted()):
                if client not in tasks or tasks[client].done():
                    tasks[client] = asyncio.ensure_future(self._client(client))
            await asyncio.sleep(0.02)
        await asyncio.wait_for(asyncio.gather(*tasks.values()), TIMEOUT_S)
        for task in tasks.values():
            task.result()

    def _now_s(self) -> float:
        return time.monotonic() - self._began_s

    def _wanted(self) -> int:
        return ramp.wanted(self._now_s(), self._level_s)

    async def _client(self, client: int) -> None:
        while client < self._wanted():
            self._number += 1
            request_id = f"r{self._number}"
            self.seen[request_id] = await self._one(request_id)

    async def _one(self, request_id: str) -> tuple[float, float, float]:
        """Return when a request was sent, its first token came, and its last."""
        asked = {"model": MODEL, "prompt": "a question", "max_tokens": TOKENS, "temperature": 0, "stream": True}
        body = orjson.dumps({**asked, "seed": self._number})
        head = f"POST /v1/completions HTTP/1.1\r\nHost: {self._host}\r\nConnection: close\r\n"
        head += f"X-Request-Id: {request_id}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        reader, writer = await asyncio.open_connection(self._host, self._port)
        sent_s, first_s, content = self._now_s(), 0.0, b""
        writer.write(head.encode() + body)
        while part := await reader.read(65536):
            content += part
            if not first_s and b"data: {" in content:
                first_s = self._now_s()
        writer.close()
        if not content.rstrip().endswith(b"0") or b"data: [DONE]" not in content:
            message = f"{request_id} was not answered: {content[-500:]!r}"
            raise SystemExit(message)
        return sent_s, first_s, self._now_s()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--level-s", type=float, default=4.0, help="seconds of each step of the load")
    parser.add_argument("--threshold", type=int, default=THRESHOLD)
    parser.add_argument("--hysteresis", type=int, default=HYSTERESIS)
    parser.add_argument("--plot", type=Path, help="SVG file to write")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="balancer-") as name, ExitStack() as stack:
        directory = Path(name)
        repository, urls = _servers(directory, stack)
        both = f"routing: {{groups: {{few: {FEW}, many: {MANY}, threshold: {options.threshold}, "
        both += f"hysteresis: {options.hysteresis}}}}}"
        sides: list[tuple[str, Sequence[ramp.Step]]] = []
        for side, groups, routing in (("balanced", (FEW, MANY), both), (FEW, (FEW,), ""), (MANY, (MANY,), "")):
            chosen = {group: urls[group] for group in groups}
            with _gateway(directory / f"gateway-{side}", repository, chosen, routing) as (url, log):
                clients = Clients(url, options.level_s)
                uvloop.run(clients.run())
            sides.append((side, ramp.steps(_seen(clients, log, urls), options.level_s, FEW)))
            print(f"{side}: {len(clients.seen)} requests", file=sys.stderr)
    for key, value in surroundings.describe(command=" ".join(sys.argv)).items():
        print(f"{key}: {value}")
    print("\n" + "\n".join(ramp.table(sides)))
    if options.plot is not None:
        options.plot.parent.mkdir(parents=True, exist_ok=True)
        options.plot.write_text(ramp.plot("Dynamic load balancing over four tritonservers on a CPU", sides, FEW))
    return 0


def _servers(directory: Path, stack: ExitStack) -> tuple[Path, Mapping[str, Sequence[str]]]:
    """Start every server; return a repository for the gateways, and the groups' addresses."""
    urls: dict[str, list[str]] = {}
    for group, count in NUM_SERVERS.items():
        place = directory / group
        place.mkdir()
        repository, _ = paced_repository.write(place, {MODEL: PACES[group]})
        for index in range(count):
            running = stack.enter_context(served_model.running(repository, directory / f"{group}{index}.log"))
            urls.setdefault(group, []).append(running.url)
    return repository, urls


@contextlib.contextmanager
def _gateway(
    directory: Path, repository: Path, groups: Mapping[str, Sequence[str]], routing: str
) -> Iterator[tuple[str, Path]]:
    directory.mkdir()
    lines = [f"repository: {repository}", routing, "servers:"]
    for group, urls in groups.items():
        lines += [f"  {group}{index}: {{url: '{url}', group: {group}}}" for index, url in enumerate(urls)]
    log = directory / "gateway.log"
    with gateways.configured(lines, directory / "gateway.yaml", log) as url:
        yield url, log


def _seen(clients: Clients, log: Path, urls: Mapping[str, Sequence[str]]) -> list[ramp.Seen]:
    """Return what clients saw, with the group that the gateway's log says."""
    groups = {url: group for group, several in urls.items() for url in several}
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    servers = {str(line["request_id"]): str(line["server"]) for line in lines if line.get("message") == "request"}
    return [
        ramp.Seen(
            sent_s=sent_s,
            first_token_s=first_s,
            ended_s=ended_s,
            num_tokens=TOKENS,
            group=groups[servers[request_id]],
        )
        for request_id, (sent_s, first_s, ended_s) in clients.seen.items()
    ]


if __name__ == "__main__":
    sys.exit(main())

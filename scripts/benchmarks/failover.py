#!/usr/bin/env python3
"""What clients notice when one of three servers breaks under 32 greedy streams, again and again.

    python -m scripts.benchmarks.failover [--rounds 20] [--streams 32] [--harms kill stop hole restart]

Three real tritonservers with a synthetic model whose next token depends on the one before alone, a token each 10 ms for
every stream; one gateway in front. In each round all streams begin together, and at a random moment one server is

    kill     killed (SIGKILL, with its children)
    stop     stopped (SIGSTOP): its connections stay, nobody answers
    hole     cut off: packets of its connections vanish, new ones are not answered
    restart  restarted as an operator does (SIGTERM, two seconds for what runs)

and is there again before the next round. An answer must be what an undisturbed server gives, to the letter. Time to
continue is the gap in a stream that was continued, from the last token of one server to the first of the next.
Exit code 8 if a client saw an error, or a text that is not that of an undisturbed run.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import orjson
import psutil

from scripts.benchmarks.sides import paced_repository, served_model, surroundings
from scripts.benchmarks.sides.worker import ROOT
from tests.fakes.wires import Wire

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Harm = Literal["kill", "stop", "hole", "restart"]
NUM_SERVERS = 3
TOKENS = 200
EXIT_MISSED = 8
TIMEOUT_S = 60
"""Of one round's streams."""
GRACE_S = 2.0
"""What an operator's restart leaves to what runs."""


@dataclass(slots=True)
class Server:
    """One tritonserver, behind a wire that keeps its address."""

    repository: Path
    log: Path
    wire: Wire | None = None
    running: served_model.Running | None = None
    stack: ExitStack = field(default_factory=ExitStack)

    def start(self) -> None:
        """Start it, or start it again."""
        self.stack = ExitStack()
        self.running = self.stack.enter_context(served_model.running(self.repository, self.log))
        if self.wire is None:
            self.wire = Wire(self.running.url)
        self.wire.retarget(self.running.url)
        self.wire.mend()

    @property
    def url(self) -> str:
        """Where the gateway finds it, whichever process it is."""
        assert self.wire is not None
        return self.wire.url

    def stop(self) -> None:
        """End it for good."""
        self.stack.close()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the server and its children."""
        assert self.running is not None
        for process in served_model.process_tree(self.running.pid):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def harm(self, harm: Harm) -> None:
        """Break it."""
        assert self.running is not None
        assert self.wire is not None
        if harm == "kill":
            self.signal(signal.SIGKILL)
        elif harm == "stop":
            self.signal(signal.SIGSTOP)
        elif harm == "hole":
            self.wire.hold()
        else:
            os.kill(self.running.pid, signal.SIGTERM)

    def recover(self, harm: Harm) -> None:
        """Let it be there again, as it was or as a new process."""
        assert self.wire is not None
        if harm == "hole":
            self.wire.mend()
            return
        self.wire.cut()
        if harm != "restart":
            self.signal(signal.SIGKILL)
        with contextlib.suppress(Exception):
            self.stack.close()
        self.start()


@dataclass(slots=True)
class Stream:
    """One client's answer."""

    request_id: str
    text: str = ""
    error: str = ""
    times_s: list[float] = field(default_factory=list)

    def gap_s(self) -> float:
        """Return the longest wait for a token."""
        return float(np.diff(self.times_s).max()) if len(self.times_s) > 1 else float("nan")

    async def run(self, url: str) -> None:
        """Take the whole answer."""
        host, _, port = url.removeprefix("http://").rpartition(":")
        asked = {"model": "paced", "prompt": "a question", "max_tokens": TOKENS, "temperature": 0, "stream": True}
        body = orjson.dumps({**asked, "seed": 1})
        head = f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n"
        head += f"X-Request-Id: {self.request_id}\r\n"
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        try:
            while line := await reader.readline():
                self._take(line)
        except OSError as error:
            self.error = str(error)
        writer.close()

    def _take(self, line: bytes) -> None:
        if not line.startswith((b"data: {", b"{")):
            return
        value = orjson.loads(line.removeprefix(b"data: "))
        if "error" in value:
            self.error = value["error"]["message"]
        elif value["choices"][0]["text"]:
            self.text += value["choices"][0]["text"]
            self.times_s.append(time.monotonic())


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What came of all rounds with one harm."""

    harm: Harm
    num_streams: int = 0
    num_errors: int = 0
    num_different: int = 0
    gaps_ms: list[float] = field(default_factory=list)
    errors: set[str] = field(default_factory=set)


def main() -> int:
    options = _parse()
    random.seed(options.seed)
    with tempfile.TemporaryDirectory(prefix="failover-") as name, ExitStack() as stack:
        directory = Path(name)
        repository, _ = paced_repository.write(directory)
        servers = [Server(repository, directory / f"server{index}.log") for index in range(NUM_SERVERS)]
        for server in servers:
            server.start()
            stack.callback(server.stop)
        log = directory / "gateway.log"
        url = stack.enter_context(_gateway(directory, repository, [server.url for server in servers], log))
        expected = asyncio.run(_round(url, 1, "undisturbed", None, "kill"))[0].text
        if not expected:
            raise SystemExit("the undisturbed run gave no text")
        outcomes = [_harm_often(options, harm, url, servers, log, expected) for harm in options.harms]
    return _report(outcomes, options)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20, help="with each harm (default: %(default)s)")
    parser.add_argument("--streams", type=int, default=32, help="at once (default: %(default)s)")
    harms: tuple[Harm, ...] = ("kill", "stop", "hole", "restart")
    parser.add_argument("--harms", nargs="+", default=list(harms), choices=harms)
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


@contextlib.contextmanager
def _gateway(directory: Path, repository: Path, urls: Sequence[str], log: Path) -> Iterator[str]:
    lines = [f"repository: {repository}", "listen: {port: 0}", "servers:"]
    lines += [f"  s{index}: {{url: '{url}'}}" for index, url in enumerate(urls)]
    config = directory / "gateway.yaml"
    config.write_text("\n".join(lines) + "\n")
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


async def _round(url: str, num_streams: int, name: str, victim: Server | None, harm: Harm) -> list[Stream]:
    streams = [Stream(f"{name}-{index}") for index in range(num_streams)]
    tasks = [asyncio.ensure_future(stream.run(url)) for stream in streams]
    if victim is not None:
        while not all(stream.times_s for stream in streams):
            await asyncio.sleep(0.005)
        await asyncio.sleep(random.uniform(0, TOKENS * 0.01 * 0.7))
        await asyncio.to_thread(victim.harm, harm)
    await asyncio.wait_for(asyncio.gather(*tasks), TIMEOUT_S)
    return streams


def _harm_often(
    options: argparse.Namespace, harm: Harm, url: str, servers: Sequence[Server], log: Path, expected: str
) -> Outcome:
    outcome = Outcome(harm=harm)
    for number in range(options.rounds):
        victim = random.choice(servers)
        streams = asyncio.run(_round(url, options.streams, f"{harm}-{number}", victim, harm))
        outcome.num_streams += len(streams)
        outcome.num_errors += sum(bool(stream.error) for stream in streams)
        outcome.errors |= {stream.error for stream in streams if stream.error}
        outcome.num_different += sum(stream.text != expected for stream in streams)
        continued = _continued(log)
        gaps = [stream.gap_s() * 1000 for stream in streams if stream.request_id in continued]
        outcome.gaps_ms += gaps
        worst = f"{max(gaps):.0f} ms" if gaps else "-"
        print(f"{harm} {number + 1} of {options.rounds}: {len(gaps)} continued, {worst} at most", file=sys.stderr)
        victim.recover(harm)
        _await_all(url)
    return outcome


def _continued(log: Path) -> set[str]:
    """Return the ids of requests that went on at another server."""
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    return {str(line["request_id"]) for line in lines if line.get("num_continued")}


def _await_all(url: str) -> None:
    """Wait until the gateway finds every server ready, and takes it back."""
    import httpx

    deadline = time.monotonic() + TIMEOUT_S
    while True:
        text = httpx.get(f"{url}/metrics", timeout=10).text
        if len(re.findall(r"^scalellm_backend_up\{.*\} 1\.0$", text, re.MULTILINE)) == NUM_SERVERS:
            break
        if time.monotonic() > deadline:
            raise SystemExit("a server did not come back")
        time.sleep(0.2)
    time.sleep(1.5)  # ejected for as long


def _report(outcomes: Sequence[Outcome], options: argparse.Namespace) -> int:
    for name, value in surroundings.describe(command=" ".join(sys.argv)).items():
        print(f"{name}: {value}")
    print("\n| harm | rounds | streams | errors | other texts | continued | p50 ms | p99 ms | max ms |")
    print("|---|---|---|---|---|---|---|---|---|")
    for each in outcomes:
        times = "- | - | -"
        if each.gaps_ms:
            times = " | ".join(f"{value:.0f}" for value in (*np.percentile(each.gaps_ms, [50, 99]), max(each.gaps_ms)))
        print(
            f"| {each.harm} | {options.rounds} | {each.num_streams} | {each.num_errors} | {each.num_different} | "
            f"{len(each.gaps_ms)} | {times} |"
        )
        for error in sorted(each.errors)[:5]:
            print(f"  error: {error}")
    return EXIT_MISSED if any(each.num_errors or each.num_different for each in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())

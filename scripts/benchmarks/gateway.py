#!/usr/bin/env python3
"""What the gateway costs: the same tokens taken directly over gRPC, through our gateway, and through peers before it.

A synthetic model in the real tritonserver makes a token each 10 ms for every stream, or as fast as it can; sides take
turns within a round. Processor time is of each side's own processes. A peer proxies our gateway, whose time is not
counted for it.

Peers, each in an environment of its own:
  python3 -m venv DIR && DIR/bin/pip install 'litellm[proxy]'      --litellm DIR/bin/litellm
  python3 -m venv DIR && DIR/bin/pip install smg                   --smg DIR/bin/smg
  apt-get install nginx, or without root: apt-get download nginx;
  dpkg -x nginx_*.deb DIR                                          --nginx DIR/usr/sbin/nginx
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from scripts.benchmarks.sides import gateway_targets, gateways, paced_repository, served_model, surroundings
from scripts.benchmarks.sides.gateway_targets import Cell
from scripts.benchmarks.sides.gateways import Side
from scripts.benchmarks.sides.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scripts.benchmarks.sides.served_model import Running

OURS, GRPC = "gateway", "gateway over grpc.aio"
TOKENS_OF_A_STREAM = 150
LITELLM_STREAMS = (8, 32)
MANY_STREAMS = (32, 64, 128)
NUM_DISCONNECTS = 15
NUM_ALONE = 12
TOKENS_ALONE = 20
UNPACED_CELL_TOKENS, UNPACED_STREAM_TOKENS = 25600, 400
"""Enough that a stream as fast as the model can is not mostly its first token, which has its own targets."""


@dataclass(slots=True)
class Bench:
    """What a run has, and what it has found."""

    client: Worker
    server: Running
    cells: list[Cell] = field(default_factory=list)
    next_row: int = 0

    def measure(self, round_number: int, side: Side, streams: int, pace: str, tokens: int) -> Cell:
        """Take one cell."""
        side_s, server_s = side.cpu_s(), gateways.cpu_s(self.server.pid)
        # One stream alone says little of the time to its first token: several, one after the other.
        number = streams if streams > 1 else NUM_ALONE
        answer = self.ask(side, number, "paced" if pace == "mock" else pace, tokens, at_once=streams)
        count = answer["num_tokens"]
        cell = Cell(
            round=round_number,
            side=side.name,
            streams=streams,
            pace=pace,
            tokens_per_s=count / answer["seconds"],
            cpu_us=(side.cpu_s() - side_s) / count * 1e6,
            server_cpu_us=(gateways.cpu_s(self.server.pid) - server_s) / count * 1e6,
            client_cpu_us=answer["cpu_s"] / count * 1e6,
            ttft_ms=answer["ttft_ms"],
            lag_p50_ms=answer["lag_p50_ms"],
            lag_p99_ms=answer["lag_p99_ms"],
            events_per_token=answer["num_events"] / count,
        )
        self.cells.append(cell)
        return cell

    def ask(
        self, side: Side, streams: int, model: str, tokens: int, *, at_once: int = 0, num_before_leaving: int = 0
    ) -> dict[str, Any]:
        """Let the client take streams, all at once unless it is said how many."""
        first_row, self.next_row = self.next_row, self.next_row + streams
        return self.client.ask(
            kind=side.kind,
            url=side.url,
            key=side.key,
            model=model,
            streams=streams,
            tokens=tokens,
            at_once=at_once or streams,
            first_row=first_row,
            num_before_leaving=num_before_leaving,
        )


def main() -> None:
    options = _parse()
    with tempfile.TemporaryDirectory(prefix="gateway-benchmark-") as name, ExitStack() as stack:
        directory = Path(name)
        repository, _ = paced_repository.write(directory)
        server = stack.enter_context(served_model.running(repository, directory / "server.log"))
        emissions = directory / "emissions"
        arguments = [str(emissions)]
        module = "scripts.benchmarks.sides.stream_client"
        bench = Bench(stack.enter_context(Worker(sys.executable, module, arguments, directory / "client.log")), server)
        sides, reference = _sides(options, repository, server.url, directory, stack)
        for side in sides:
            bench.ask(side, 8, "paced", 20)  # connections, caches, code that is run for the first time
        for number in range(options.rounds):
            _round(bench, options, number, sides)
        disconnects = bench.ask(sides[1], NUM_DISCONNECTS, "paced", 150, num_before_leaving=5)["seen_ms"]
        if not options.no_mock:
            _mock(bench, options, repository, directory, emissions)
    _report(options, bench.cells, disconnects, reference)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8, 32, 64, 128])
    parser.add_argument("--paces", nargs="+", default=["paced", "unpaced"], choices=list(paced_repository.STEPS_MS))
    parser.add_argument("--nginx", help="the program")
    parser.add_argument("--smg", help="the program")
    parser.add_argument("--litellm", help="the program")
    parser.add_argument("--no-mock", action="store_true", help="leave out what is measured without tritonserver")
    parser.add_argument(
        "--reference", type=Path, help="a checkout whose gateway is the reference, else ours over grpc.aio"
    )
    parser.add_argument("--json", type=Path, help="write cells, targets and surroundings to this file")
    return parser.parse_args()


def _sides(
    options: argparse.Namespace, repository: Path, url: str, directory: Path, stack: ExitStack
) -> tuple[list[Side], str]:
    """Start everything that is measured; return it, and the name of the reference gateway."""
    enter = stack.enter_context
    ours = enter(gateways.ours(OURS, repository, url, directory))
    sides = [Side(name="direct", kind="direct", url=url, pid=None), ours]
    sides.append(enter(gateways.ours(GRPC, repository, url, directory, "--upstream", "grpc")))
    reference = GRPC
    if options.reference:
        reference = "reference"
        sides.append(enter(gateways.ours(reference, repository, url, directory, root=options.reference.resolve())))
    if options.nginx:
        sides.append(enter(gateways.nginx(options.nginx, ours, directory)))
    if options.smg:
        sides.append(enter(gateways.smg(options.smg, ours, directory)))
    if options.litellm:
        sides.append(enter(gateways.litellm(options.litellm, ours, list(paced_repository.STEPS_MS), directory)))
    return sides, reference


def _round(bench: Bench, options: argparse.Namespace, number: int, sides: Sequence[Side]) -> None:
    for pace in options.paces:
        for streams in options.streams:
            # Another one begins each round, so that none always has the quietest place.
            shift = number % len(sides)
            for side in [*sides[shift:], *sides[:shift]]:
                if _is_wanted(side.name, streams, pace):
                    _print(bench.measure(number, side, streams, pace, _tokens(streams, pace)))


def _is_wanted(side: str, streams: int, pace: str) -> bool:
    """Peers are measured where a target names them."""
    if side == "litellm":
        return pace == "paced" and streams in LITELLM_STREAMS
    return side not in ("nginx", "smg") or (pace == "paced" and streams in MANY_STREAMS)


def _tokens(streams: int, pace: str) -> int:
    if pace == "unpaced":
        return min(UNPACED_CELL_TOKENS // streams, UNPACED_STREAM_TOKENS)
    return TOKENS_ALONE if streams == 1 else TOKENS_OF_A_STREAM


def _mock(bench: Bench, options: argparse.Namespace, repository: Path, directory: Path, emissions: Path) -> None:
    with gateways.mock(directory, emissions) as mock, ExitStack() as stack:
        start = [(OURS, "1", 128), ("one worker", "1", 256), ("two workers", "2", 256)]
        sides = [
            (stack.enter_context(gateways.ours(name, repository, mock.url, directory, "--workers", workers)), streams)
            for name, workers, streams in start
        ]
        for side, _ in sides:
            bench.ask(side, 8, "paced", 20)
        for number in range(options.rounds):
            for side, streams in sides:
                _print(bench.measure(number, side, streams, "mock", 100))


def _print(cell: Cell) -> None:
    print(
        f"{cell.round} {cell.pace:8} N={cell.streams:<4} {cell.side:22} {cell.tokens_per_s:7.0f} tok/s  "
        f"cpu {cell.cpu_us:6.1f} us  server {cell.server_cpu_us:5.0f}  client {cell.client_cpu_us:5.1f}  "
        f"ttft {cell.ttft_ms:7.2f} ms  lag p50 {cell.lag_p50_ms:7.2f} p99 {cell.lag_p99_ms:7.2f}  "
        f"ev/tok {cell.events_per_token:.2f}",
        flush=True,
    )


def _report(options: argparse.Namespace, cells: Sequence[Cell], disconnects: Sequence[float], reference: str) -> None:
    verdicts = gateway_targets.table(cells, disconnects, OURS, reference)
    print(f"\nreference gateway: {reference}\n| target | must | good | found | result |\n|---|---|---|---|---|")
    for each in verdicts:
        found = "" if each.found is None else f"{each.found:.3g}"
        print(f"| {each.target} | {each.must} | {each.good} | {found} | {each.result} |")
    if options.json:
        content = {
            "surroundings": surroundings.describe(reference=reference),
            "cells": [dataclasses.asdict(cell) for cell in cells],
            "disconnects_ms": list(disconnects),
            "targets": [dataclasses.asdict(each) for each in verdicts],
        }
        options.json.write_text(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""What tenants cost, and whether they get what they are to get.

Cost: processor time of the gateway for each request, without tenants and with eight tenants, all limits and a ledger,
and of another checkout if one is given; sides take turns within a round, in front of a mock server.

Shares: 64 clients of 8 tenants want all that they can get for a time: tokens of each against its share or limit, and
the ledger against what the clients were told.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[2]))

from scalellm_trt.gateway import api_keys
from scalellm_trt.gateway.tenants import ledger_files
from scripts.benchmarks.sides import gateways, paced_repository, paired_ratio, surroundings
from scripts.benchmarks.sides.tenant_load import Ask, Load, shares
from scripts.benchmarks.sides.worker import Worker

if TYPE_CHECKING:
    from scripts.benchmarks.sides.gateways import Side

MODEL = "paced"
WEIGHTS = {"w1": 1, "w2": 2, "w4": 4}
PER_MINUTE = {"requests": 60, "tokens": 1500, "urgent": 6000}
SHARES = f"""\
limits: {{max_streams: 4}}
tenants:
  w1: {{weight: 1}}
  w2: {{weight: 2}}
  w4: {{weight: 4}}
  requests: {{priority: high, requests_per_minute: {PER_MINUTE["requests"]}}}
  tokens: {{tokens_per_minute: {PER_MINUTE["tokens"]}}}
  urgent: {{priority: high, tokens_per_minute: {PER_MINUTE["urgent"]}}}
  one: {{priority: high, max_concurrent: 1}}
  low: {{priority: low}}
"""
NAMES = ("w1", "w2", "w4", "requests", "tokens", "urgent", "one", "low")
ALL_LIMITS = "requests_per_minute: 10000000, tokens_per_minute: 1000000000, max_concurrent: 10000"
COST = "tenants:\n" + "".join(f"  {name}: {{{ALL_LIMITS}, models: [{MODEL}]}}\n" for name in NAMES)
BURSTS_S = 8.0
SHAPES = {"2 tokens": (1280, 64, 2), "64 tokens": (128, 64, 64)}
"""Streams of a cell, how many of them at once, tokens of each."""


def main() -> None:
    options = _parse()
    with tempfile.TemporaryDirectory(prefix="tenants-benchmark-") as name, ExitStack() as stack:
        directory = Path(name)
        repository, _ = paced_repository.write(directory)
        mock = stack.enter_context(gateways.mock(directory, directory / "emissions"))
        result: dict[str, object] = {"surroundings": surroundings.describe()}
        if options.rounds:
            result["cost"] = _cost(options, repository, mock.url, directory)
        if options.seconds:
            result["shares"] = _shares(options, repository, mock.url, directory)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="of the cost; 0 leaves it out")
    parser.add_argument("--seconds", type=float, default=40.0, help="of the shares; 0 leaves them out")
    parser.add_argument("--reference", type=Path, help="a checkout whose gateway is measured too")
    parser.add_argument(
        "--workers", type=int, default=1, help="of the gateway with tenants; max_streams holds for each"
    )
    parser.add_argument("--json", type=Path, help="write everything to this file")
    return parser.parse_args()


def _config(directory: Path, name: str, text: str) -> str:
    place = directory / name
    place.mkdir()
    api_keys.write(place / "keys", {tenant: api_keys.digest(f"sk-{tenant}") for tenant in NAMES})
    file = place / "gateway.yaml"
    file.write_text(f"keys: {{file: keys}}\nledger: {{directory: usage}}\n{text}")
    return str(file)


def _cost(options: argparse.Namespace, repository: Path, url: str, directory: Path) -> dict[str, object]:
    keys = _config(directory, "keys", "").removesuffix("gateway.yaml") + "keys"
    with_tenants = ("--config", _config(directory, "cost", COST), "--workers", str(options.workers))
    found: dict[str, dict[str, list[float]]] = {}
    with ExitStack() as stack:
        enter = stack.enter_context
        arguments = [str(directory / "emissions")]
        client = enter(
            Worker(sys.executable, "scripts.benchmarks.sides.stream_client", arguments, directory / "client.log")
        )
        sides = [enter(gateways.ours("plain", repository, url, directory, "--keys", keys))]
        sides.append(enter(gateways.ours("tenants", repository, url, directory, *with_tenants)))
        if options.reference:
            root = options.reference.resolve()
            sides.append(enter(gateways.ours("reference", repository, url, directory, "--keys", keys, root=root)))
        sides = [dataclasses.replace(side, key="sk-w1") for side in sides]
        for number in range(options.rounds + 1):
            shift = number % len(sides)
            for shape in SHAPES:
                for side in [*sides[shift:], *sides[:shift]]:
                    cost_us = _measure(client, side, shape)
                    if number:  # the first one warms up
                        found.setdefault(shape, {}).setdefault(side.name, []).append(cost_us)
    for shape, costs in found.items():
        plain = costs["plain"]
        for name, values in costs.items():
            ratio = paired_ratio.of_pairs(values, plain)
            print(f"{shape:10} {name:10} {statistics.median(values):7.1f} us a request, {ratio} of plain", flush=True)
    return dict(found)


def _measure(client: Worker, side: Side, shape: str) -> float:
    """Return the processor time of the side for each request, in microseconds."""
    streams, at_once, tokens = SHAPES[shape]
    before_s = side.cpu_s()
    client.ask(
        kind="http",
        url=side.url,
        key=side.key,
        model=MODEL,
        streams=streams,
        tokens=tokens,
        at_once=at_once,
        first_row=0,
        num_before_leaving=0,
    )
    return (side.cpu_s() - before_s) / streams * 1e6


def _shares(options: argparse.Namespace, repository: Path, url: str, directory: Path) -> dict[str, object]:
    config = _config(directory, "shares", SHARES)
    ask = Ask(model=MODEL, word=" abc", prompt_words=(1, 20), fields={"max_tokens": 10})
    workers = str(options.workers)
    with gateways.ours("shares", repository, url, directory, "--config", config, "--workers", workers) as side:
        load = Load(side.url, {name: f"sk-{name}" for name in NAMES}, ask, clients_each=8)
        began_s = time.monotonic()
        asyncio.run(load.run(options.seconds))
        ended_s = began_s + options.seconds
    rows: dict[str, object] = {}
    window = (began_s + BURSTS_S, ended_s)
    for tenant, share in shares(load.seen, tuple(WEIGHTS), *window).items():
        rows[tenant] = _row(f"{tenant}: share among the weighted", share, WEIGHTS[tenant] / sum(WEIGHTS.values()))
    minutes = 1 + options.seconds / 60
    rows["requests"] = _row("requests", len(load.seen["requests"].ended), PER_MINUTE["requests"] * minutes)
    for tenant in ("tokens", "urgent"):
        rows[tenant] = _row(f"{tenant}: tokens", load.seen[tenant].tokens(), PER_MINUTE[tenant] * minutes)
    higher = sum(load.seen[name].tokens(*window) for name in NAMES if name != "low")
    rows["low"] = _row("low: of the tokens of higher classes", load.seen["low"].tokens(*window) / higher, 1 / 20)
    used = ledger_files.add_up(ledger_files.hours(Path(config).parent / "usage").values()).used
    noted = sum(each.prompt_tokens + each.completion_tokens for each in used.values())
    rows["ledger"] = _row(
        "ledger: tokens, against what clients saw", noted, sum(s.tokens() for s in load.seen.values())
    )
    return rows


def _row(about: str, found: float, expected: float) -> dict[str, float]:
    print(f"{about:42} {found:10.4g} expected {expected:10.4g}  {found / expected - 1:+.1%}", flush=True)
    return {"found": found, "expected": expected}


if __name__ == "__main__":
    main()

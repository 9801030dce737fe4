#!/usr/bin/env python3
"""What clients notice when one of three servers breaks under 32 greedy streams, again and again.

    python -m scripts.benchmarks.failover [--rounds 20] [--streams 32] [--harms kill stop hole restart]
    python -m scripts.benchmarks.failover --repository triton_repo [--kv f32] --harms kill

Three real tritonservers with a synthetic model whose next token depends on the one before alone, a token each 10 ms for
every stream; one gateway in front. With `--repository` the model is the OpenVINO one that was built there, a prompt for
each stream, its KV cache of the precision `--kv`: f32, which no recipe has, is what a stream needs to go on exactly.
In each round all streams begin together, and at a random moment one server is

    kill     killed (SIGKILL, with its children)
    stop     stopped (SIGSTOP): its connections stay, nobody answers
    hole     cut off: packets of its connections vanish, new ones are not answered
    restart  restarted as an operator does (SIGTERM, two seconds for what runs)
    none     left alone: whatever is continued then was taken from a sound server

and is there again before the next round. An answer must be what an undisturbed server gives, to the letter. Time to
continue is the gap in a stream that was continued, from the last token of one server to the first of the next.
Exit code 8 if a client saw an error, or if more texts than allowed are not those of an undisturbed run: none of the
synthetic model's, 1% of a real one's.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import re
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scalellm_trt.triton import repository_check
from scripts.benchmarks import determinism
from scripts.benchmarks.sides import adjusted_repository, gateways, paced_repository, served_model, surroundings
from scripts.benchmarks.sides.breaking_server import Harm, Server
from scripts.benchmarks.sides.judged_streams import Outcome, Stream, Workload, judge

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

NUM_SERVERS = 3
TOKENS = 200
ALLOWED_SHARE = 0.01
HARM_PART = 0.7
"""Servers break in this first part of a round."""
EXIT_MISSED = 8
HEADING = (
    "| harm | rounds | streams | errors | other texts | continued | of them other texts | other before the cut "
    "| p50 ms | p99 ms | max ms |"
)
TIMEOUT_S = 180
"""Of one round's streams."""


def main() -> int:
    options = _parse()
    random.seed(options.seed)
    with tempfile.TemporaryDirectory(prefix="failover-") as name, ExitStack() as stack:
        directory = Path(name)
        repository, workload = _workload(options, directory)
        check = repository_check.check if options.repository is None else _unchecked
        servers = [Server(repository, directory / f"server{index}.log", check) for index in range(options.servers)]
        for server in servers:
            server.start()
            stack.callback(server.stop)
        log = directory / "gateway.log"
        workload.url = stack.enter_context(_gateway(directory, repository, [server.url for server in servers], log))
        undisturbed = _undisturbed(workload)
        outcomes = [_harm_often(options, harm, workload, servers, log) for harm in options.harms]
    return _report(outcomes, options, workload, undisturbed)


def _workload(options: argparse.Namespace, directory: Path) -> tuple[Path, Workload]:
    if options.repository is None:
        repository, _ = paced_repository.write(directory)
        return repository, Workload(
            url="", model="paced", prompts=["a question"] * options.streams, tokens=options.tokens
        )
    model = served_model.find(options.repository, options.model)
    # Three engines with two threads each would wait for each other on two cores.
    settings = {"kv_cache_precision": options.kv, "num_threads": 1}
    repository = adjusted_repository.write(model, directory / "triton_repo", **settings)
    prompts = determinism.excerpts(options.streams)
    return repository, Workload(
        url="", model=model.name, prompts=prompts, tokens=options.tokens, allowed_share=ALLOWED_SHARE
    )


def _unchecked(repository: Path) -> None:
    """Serve what was changed after it was published."""


def _undisturbed(workload: Workload) -> int:
    """Note what an undisturbed run answers, and return how many answers of a second one are others."""
    streams = asyncio.run(_round(workload, "undisturbed", None, "kill"))
    if any(stream.error or not stream.text for stream in streams):
        message = f"the undisturbed run failed: {[stream.error for stream in streams]}"
        raise SystemExit(message)
    workload.expected = [stream.text for stream in streams]
    workload.lasts_s = max(s.times_s[-1] for s in streams) - max(s.times_s[0] for s in streams)
    again = asyncio.run(_round(workload, "again", None, "kill"))
    return sum(stream.text != expected for stream, expected in zip(again, workload.expected, strict=True))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20, help="with each harm (default: %(default)s)")
    parser.add_argument("--streams", type=int, default=32, help="at once (default: %(default)s)")
    harms: tuple[Harm, ...] = ("kill", "stop", "hole", "restart")
    parser.add_argument("--harms", nargs="+", default=list(harms), choices=(*harms, "none"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--servers", type=int, default=NUM_SERVERS)
    parser.add_argument("--tokens", type=int, default=TOKENS, help="of each answer (default: %(default)s)")
    parser.add_argument("--repository", type=Path, help="a built repository with an OpenVINO model")
    parser.add_argument("--model", help="a service of it; its only one by default")
    parser.add_argument("--kv", choices=("f32", "f16", "u8"), default="f32", help="precision of its KV cache")
    return parser.parse_args()


@contextlib.contextmanager
def _gateway(directory: Path, repository: Path, urls: Sequence[str], log: Path) -> Iterator[str]:
    lines = [f"repository: {repository}", "servers:"]
    lines += [f"  s{index}: {{url: '{url}'}}" for index, url in enumerate(urls)]
    with gateways.configured(lines, directory / "gateway.yaml", log) as url:
        yield url


async def _round(workload: Workload, name: str, victim: Server | None, harm: Harm) -> list[Stream]:
    streams = [Stream(f"{name}-{index}", prompt) for index, prompt in enumerate(workload.prompts)]
    tasks = [asyncio.ensure_future(stream.run(workload)) for stream in streams]
    if victim is not None:
        while not all(stream.times_s for stream in streams):
            await asyncio.sleep(0.005)
        await asyncio.sleep(random.uniform(0, workload.lasts_s * HARM_PART))
        await asyncio.to_thread(victim.harm, harm)
    await asyncio.wait_for(asyncio.gather(*tasks), TIMEOUT_S)
    return streams


def _harm_often(
    options: argparse.Namespace, harm: Harm, workload: Workload, servers: Sequence[Server], log: Path
) -> Outcome:
    outcome = Outcome(harm=harm)
    for number in range(options.rounds):
        victim = random.choice(servers)
        streams = asyncio.run(_round(workload, f"{harm}-{number}", victim, harm))
        gaps = judge(outcome, streams, workload, _continued(log))
        worst = f"{max(gaps):.0f} ms" if gaps else "-"
        note = f"{len(gaps)} continued, {worst} at most, {outcome.num_different} other texts so far"
        print(f"{harm} {number + 1} of {options.rounds}: {note}", file=sys.stderr, flush=True)
        victim.recover(harm)
        _await_all(workload.url, len(servers))
    return outcome


def _continued(log: Path) -> set[str]:
    """Return the ids of requests that went on at another server."""
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    return {str(line["request_id"]) for line in lines if line.get("num_continued")}


def _await_all(url: str, num_servers: int) -> None:
    """Wait until the gateway finds every server ready, and takes it back."""
    import httpx

    deadline = time.monotonic() + TIMEOUT_S
    while True:
        text = httpx.get(f"{url}/metrics", timeout=10).text
        if len(re.findall(r"^scalellm_backend_up\{.*\} 1\.0$", text, re.MULTILINE)) == num_servers:
            break
        if time.monotonic() > deadline:
            raise SystemExit("a server did not come back")
        time.sleep(0.2)
    time.sleep(1.5)  # ejected for as long


def _report(
    outcomes: Sequence[Outcome], options: argparse.Namespace, workload: Workload, num_unlike_itself: int
) -> int:
    for name, value in surroundings.describe(command=" ".join(sys.argv)).items():
        print(f"{name}: {value}")
    print(f"undisturbed, a second time: {num_unlike_itself} of {options.streams} texts are others")
    print("\n" + HEADING + "\n" + "|---" * (HEADING.count("|") - 1) + "|")
    for each in outcomes:
        times = "- | - | -"
        if each.gaps_ms:
            times = " | ".join(f"{value:.0f}" for value in (*np.percentile(each.gaps_ms, [50, 99]), max(each.gaps_ms)))
        print(
            f"| {each.harm} | {options.rounds} | {each.num_streams} | {each.num_errors} | {each.num_different} | "
            f"{len(each.gaps_ms)} | {each.num_continued_different} | {each.num_changed} | {times} |"
        )
        for error in sorted(each.errors)[:5]:
            print(f"  error: {error}")
    is_good = all(
        not each.num_errors
        and not (each.harm == "none" and each.gaps_ms)
        and each.num_different <= workload.allowed_share * each.num_streams
        for each in outcomes
    )
    return 0 if is_good else EXIT_MISSED


if __name__ == "__main__":
    sys.exit(main())

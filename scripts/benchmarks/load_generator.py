#!/usr/bin/env python3
"""The load generator's own error: what it says of a server whose times are known.

    python -m scripts.benchmarks.load_generator [--streams 1 64] [--requests-of-a-stream 4] [--json FILE]
                                                [--guidellm PROGRAM]

A server in a process of its own writes the first token 100 ms after a request and the others 5 ms apart: 64 streams
are 12,800 tokens a second. It keeps when it really wrote each, by the clock that the load generator reads too. Added
TTFT is what `records.jsonl` says beyond that; the gap error is the difference of each gap between two tokens.
Besides: the medians of TTFT and time between tokens that a report has, against those of the server. Exit code 8 where
the added TTFT or the gap error is above 2 ms at the median, or a median of the report is off by more than 2 ms and
3%.

With --guidellm another tool measures the same server right after, as often; the server keeps its own times for that too
(how to install it: scripts/benchmarks/sides/guidellm.py).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE

sys.path.insert(0, str(Path(__file__).parents[2]))

from scalellm_trt.bench import metrics
from scalellm_trt.bench import run as runs
from scripts.benchmarks.sides import guidellm, surroundings, timed_server
from scripts.benchmarks.sides.worker import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from scalellm_trt.bench.records import RequestRecord
    from scalellm_trt.bench.run import Cell

TTFT_MS, GAP_MS = 100.0, 5.0
TOKENS = 200
LIMIT_MS, LIMIT_SHARE = 2.0, 0.03
EXIT_MISSED = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Error:
    """One number of streams, in ms.

    Attributes:
        ttft_ms, tpot_ms: medians of the report; `true_…` those of the server.
        added_ttft_ms, gap_error_ms: median and 99th percentile.
        cpu_share: of the busiest client process, of one core.
    """

    streams: int
    ttft_ms: float
    true_ttft_ms: float
    tpot_ms: float
    true_tpot_ms: float
    added_ttft_ms: tuple[float, float]
    gap_error_ms: tuple[float, float]
    cpu_share: float
    num_processes: int

    @property
    def is_met(self) -> bool:
        """Whether it is within the limits."""
        medians = ((self.ttft_ms, self.true_ttft_ms), (self.tpot_ms, self.true_tpot_ms))
        is_true = all(abs(found - true) <= max(LIMIT_MS, LIMIT_SHARE * true) for found, true in medians)
        return is_true and self.added_ttft_ms[0] <= LIMIT_MS and self.gap_error_ms[0] <= LIMIT_MS


@dataclass(frozen=True, slots=True, kw_only=True)
class Opinion:
    """What another tool says of as many streams, medians in ms; `true_…` those of the server in that run."""

    streams: int
    ttft_ms: float
    true_ttft_ms: float
    inter_token_ms: float
    true_tpot_ms: float
    per_output_token_ms: float


def measure(options: argparse.Namespace, directory: Path) -> tuple[list[Error], list[Opinion]]:
    """Run the server and `scalellm-trt bench` against it, and guidellm if there is one."""
    write_tokenizer(directory)
    argv = [sys.executable, "-m", "scripts.benchmarks.sides.timed_server", "0", str(TTFT_MS), str(GAP_MS)]
    server = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert server.stdout is not None
        url = f"http://127.0.0.1:{int(server.stdout.readline())}"
        errors, opinions = [], []
        for number in options.streams:
            num_requests = number * options.requests_of_a_stream
            out = directory / f"run-{number}"
            argv = [sys.executable, "-m", "scalellm_trt", "bench", "--target", f"timed={url}", "--osl", str(TOKENS)]
            argv += ["--tokenizer", str(directory), "--out", str(out), "--concurrency", str(number)]
            argv += ["--requests", str(num_requests)]
            argv += ["--processes", str(options.processes)] if options.processes else []
            subprocess.run(argv, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
            run, records = runs.read(out)
            errors.append(_error(run.cells[0], runs.records_of(run.cells[0], records), _truth(url)))
            if options.guidellm:
                times = guidellm.measure(
                    options.guidellm, url, timed_server.MODEL, directory, number, num_requests, TOKENS
                )
                opinions.append(_opinion(number, times, _truth(url)))
        return errors, opinions
    finally:
        server.kill()
        server.communicate()


def write_tokenizer(directory: Path) -> None:
    """Write a byte-level tokenizer to which the server's word is one token."""
    word = timed_server.WORD.replace(" ", "Ġ")
    merges = [(word[:end], word[end]) for end in range(1, len(word))]
    pieces = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *(left + right for left, right in merges)]
    tokenizer = Tokenizer(BPE(vocab={piece: number for number, piece in enumerate(pieces)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(directory / "tokenizer.json"))


def _error(cell: Cell, records: Sequence[RequestRecord], truth: Mapping[str, Sequence[float]]) -> Error:
    added, gaps, true_ttft, true_tpot = [], [], [], []
    for record in records:
        received_s, *emitted_s = truth[record.request_id]
        assert record.error is None
        assert sum(record.chunk_tokens) == len(emitted_s) == TOKENS, record
        came_s = np.repeat(record.chunk_s, record.chunk_tokens)
        true_ttft.append(emitted_s[0] - received_s)
        true_tpot.append((emitted_s[-1] - emitted_s[0]) / (TOKENS - 1))
        added.append(came_s[0] - record.sent_s - true_ttft[-1])
        gaps.extend(np.abs(np.diff(came_s) - np.diff(emitted_s)))
    ttft = [value for record in records if isinstance(value := metrics.TTFT.of(record), float)]
    tpot = [value for record in records if isinstance(value := metrics.TPOT.of(record), float)]
    assert cell.load.concurrency is not None
    return Error(
        streams=cell.load.concurrency,
        ttft_ms=float(np.median(ttft)),
        true_ttft_ms=1000 * float(np.median(true_ttft)),
        tpot_ms=float(np.median(tpot)),
        true_tpot_ms=1000 * float(np.median(true_tpot)),
        added_ttft_ms=_percentiles(added),
        gap_error_ms=_percentiles(gaps),
        cpu_share=cell.client.cpu_share,
        num_processes=cell.client.num_processes,
    )


def _truth(url: str) -> dict[str, list[float]]:
    """Return and forget when the server got each request and wrote each of its tokens."""
    with urllib.request.urlopen(f"{url}/log") as response:
        truth: dict[str, list[float]] = json.loads(response.read())
    return truth


def _opinion(streams: int, times: guidellm.Times, truth: Mapping[str, Sequence[float]]) -> Opinion:
    # Only what it measures: a tool may ask something shorter before.
    emitted = [(received_s, each_s) for received_s, *each_s in truth.values() if len(each_s) == TOKENS]
    return Opinion(
        streams=streams,
        ttft_ms=float(np.median(times.ttft_ms)),
        true_ttft_ms=1000 * float(np.median([each_s[0] - received_s for received_s, each_s in emitted])),
        inter_token_ms=float(np.median(times.inter_token_ms)),
        true_tpot_ms=1000 * float(np.median([(each_s[-1] - each_s[0]) / (TOKENS - 1) for _, each_s in emitted])),
        per_output_token_ms=float(np.median(times.per_output_token_ms)),
    )


def _percentiles(seconds: Sequence[float]) -> tuple[float, float]:
    low, high = np.percentile(np.array(seconds) * 1000, [50, 99])
    return float(low), float(high)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 64])
    parser.add_argument("--requests-of-a-stream", type=int, default=4)
    parser.add_argument("--processes", type=int, help="of the client; else as bench chooses")
    parser.add_argument("--guidellm", help="the program")
    parser.add_argument("--json", type=Path, help="write everything to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="load-generator-") as name:
        errors, opinions = measure(options, Path(name))
    headings = ("streams", "TTFT ms (true)", "time between tokens ms (true)", "added TTFT ms p50, p99")
    print(f"| {' | '.join((*headings, 'gap error ms p50, p99', 'CPU'))} |\n|---|---|---|---|---|---|")
    for each in errors:
        print(
            f"| {each.streams} | {each.ttft_ms:.2f} ({each.true_ttft_ms:.2f}) | {each.tpot_ms:.3f} "
            f"({each.true_tpot_ms:.3f}) | {each.added_ttft_ms[0]:.2f}, {each.added_ttft_ms[1]:.2f} | "
            f"{each.gap_error_ms[0]:.3f}, {each.gap_error_ms[1]:.2f} | {each.cpu_share:.0%} of a core |"
            f"{'' if each.is_met else ' MISSED'}"
        )
    if opinions:
        print(
            "\n| streams | guidellm's TTFT ms (true) | inter-token ms (true) | per output token ms |\n|---|---|---|---|"
        )
    for opinion in opinions:
        print(
            f"| {opinion.streams} | {opinion.ttft_ms:.2f} ({opinion.true_ttft_ms:.2f}) | {opinion.inter_token_ms:.3f} "
            f"({opinion.true_tpot_ms:.3f}) | {opinion.per_output_token_ms:.3f} |"
        )
    if options.json:
        content = {
            "surroundings": surroundings.describe(),
            "errors": [dataclasses.asdict(each) for each in errors],
            "guidellm": [dataclasses.asdict(each) for each in opinions],
        }
        options.json.write_text(json.dumps(content, indent=1))
    return 0 if all(each.is_met for each in errors) else EXIT_MISSED


if __name__ == "__main__":
    sys.exit(main())

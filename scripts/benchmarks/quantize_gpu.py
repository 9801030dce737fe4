"""Calibrate a Llama with random weights layer by layer, and by calling ModelOpt on the whole model; print both.

Run as `python -m scripts.benchmarks.quantize_gpu --work-dir DIR`; needs the extra `quantize`. Each side runs in a
process of its own, from files to files, after a warm-up on a tiny model (imports and kernels that are compiled on
first use took longer than a small model): seconds, also of processor time, peak device memory (what torch's allocator
held at most) and peak resident host memory. With `--rounds` the sides take turns and medians are printed. A ratio above
1 is for us: whole model ÷ layer by layer. A side that does not fit says so.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scalellm_trt import model_spec
from scalellm_trt.checkpoint.calibration import CalibrationSamples
from scalellm_trt.checkpoint.formats import config_for
from scalellm_trt.checkpoint.layerwise import best_device, calibration_batches
from scalellm_trt.checkpoint.modelopt import quantize
from scalellm_trt.checkpoint.modelopt_rules import rules_for
from scripts.benchmarks.conversion import LLAMA_2_13B, generate

if TYPE_CHECKING:
    from scalellm_trt.checkpoint.config import CheckpointConfig

GIB = 1 << 30
SIDES = ("layers", "whole")
TINY = {
    **LLAMA_2_13B,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_attention_heads": 4,
    "vocab_size": 512,
}
SMALL = {
    **LLAMA_2_13B,
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_attention_heads": 8,
    "vocab_size": 4096,
}
SHAPES: dict[str, dict[str, Any]] = {"13b": LLAMA_2_13B, "small": SMALL, "tiny": TINY}
NUM_LAYERS = {"13b": 40, "small": 8, "tiny": 4}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one side took."""

    seconds: float
    processor_seconds: float
    device_bytes: int
    host_bytes: int


def random_samples(vocab_size: int, num_samples: int, num_tokens: int) -> CalibrationSamples:
    """Return random token ids: scales of random weights mean nothing, time and memory do."""
    rng = np.random.default_rng(0)
    ids = tuple(rng.integers(0, vocab_size, num_tokens).astype(np.int32) for _ in range(num_samples))
    return CalibrationSamples(source="random", token_ids=ids, max_seq_len=num_tokens, seed=0)


def quantize_whole(model_dir: Path, config: CheckpointConfig, samples: CalibrationSamples, out_dir: Path) -> None:
    """Do what ModelOpt's examples do: the whole model on the device."""
    import modelopt.torch.quantization as mtq
    import torch
    from modelopt.torch.export import export_tensorrt_llm_checkpoint
    from transformers import AutoModelForCausalLM

    device = best_device()
    dtype = torch.float32 if device == "cpu" else torch.float16
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=dtype, local_files_only=True).to(device).eval()
    batches = [torch.from_numpy(ids) for ids in calibration_batches(samples)]
    rules = rules_for(config.quant_algo, config.kv_cache_quant_algo, config.group_size)
    with torch.no_grad():
        mtq.quantize(model, rules, lambda module: [module.model(ids.to(device), use_cache=False) for ids in batches])
    with torch.inference_mode():
        export_tensorrt_llm_checkpoint(model, "llama", torch.float16, export_dir=out_dir, inference_tensor_parallel=1)


def quantize_with(
    side: str, model_dir: Path, samples: CalibrationSamples, out_dir: Path, options: argparse.Namespace
) -> None:
    """Write one checkpoint."""
    out_dir.mkdir()
    config = config_for(model_spec.read(model_dir), options.format, "float16", group_size=128)
    if side == "layers":
        quantize(model_dir, config, samples, out_dir, show_progress)
    else:
        quantize_whole(model_dir, config, samples, out_dir)


def run_side(side: str, model_dir: Path, out_dir: Path, options: argparse.Namespace) -> Cost:
    """Quantize a tiny model, then the model, in this process; what is returned is of the second."""
    import torch

    warnings.simplefilter("ignore")
    tiny_dir = out_dir / "tiny"
    tiny_dir.mkdir()
    generate(tiny_dir, 1, TINY)
    with contextlib.redirect_stdout(sys.stderr):  # ModelOpt prints; the last line here is the result
        quantize_with(
            side, tiny_dir, random_samples(model_spec.read(tiny_dir).vocab_size, 2, 32), out_dir / "warm-up", options
        )
        if torch.cuda.is_available():
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        samples = random_samples(model_spec.read(model_dir).vocab_size, options.samples, options.sample_tokens)
        started, processor_started = time.monotonic(), time.process_time()
        quantize_with(side, model_dir, samples, out_dir / "checkpoint", options)
        seconds, processor_seconds = time.monotonic() - started, time.process_time() - processor_started
    device_bytes = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    host_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Cost(seconds=seconds, processor_seconds=processor_seconds, device_bytes=device_bytes, host_bytes=host_bytes)


def show_progress(activity: str, share: float) -> None:
    """Print to standard error; standard output is for results."""
    print(f"\r{share:4.0%} {activity}\033[K", end="", file=sys.stderr, flush=True)


def measured(side: str, weights: str, model_dir: Path, out_dir: Path, options: argparse.Namespace) -> Cost | None:
    """Run one side in a child process; None where it failed, with its last words on standard error."""
    out_dir.mkdir()
    argv = [sys.executable, "-m", "scripts.benchmarks.quantize_gpu", "--child", side, str(model_dir), str(out_dir)]
    argv += ["--format", weights, "--samples", str(options.samples), "--sample-tokens", str(options.sample_tokens)]
    argv += ["--work-dir", str(options.work_dir)]
    done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=False)
    shutil.rmtree(out_dir)
    if done.returncode:
        return None
    return Cost(**json.loads(done.stdout.splitlines()[-1]))


def rounds(weights: str, model_dir: Path, work_dir: Path, options: argparse.Namespace) -> dict[str, Cost | None]:
    """Let the sides take turns, the other one first in every second round; return the medians, None where one fails."""
    found: dict[str, list[Cost]] = {side: [] for side in SIDES}
    failed = set()
    for number in range(options.rounds):
        for side in SIDES if number % 2 == 0 else reversed(SIDES):
            cost = None if side in failed else measured(side, weights, model_dir, work_dir / side, options)
            if cost is None:
                failed.add(side)
            else:
                found[side].append(cost)
    return {side: None if side in failed else median(costs) for side, costs in found.items()}


def median(costs: list[Cost]) -> Cost:
    """Return the median of each figure."""
    return Cost(
        seconds=statistics.median(cost.seconds for cost in costs),
        processor_seconds=statistics.median(cost.processor_seconds for cost in costs),
        device_bytes=int(statistics.median(cost.device_bytes for cost in costs)),
        host_bytes=int(statistics.median(cost.host_bytes for cost in costs)),
    )


def render(weights: str, costs: dict[str, Cost | None]) -> str:
    """Return the table rows of one format."""
    lines = []
    for side, cost in costs.items():
        if cost is None:
            lines.append(f"| {weights} | {side} | failed (see above) | | | |")
            continue
        times = f"{cost.seconds:.1f} s | {cost.processor_seconds:.1f} s"
        numbers = f"{times} | {cost.device_bytes / GIB:.2f} GiB | {cost.host_bytes / GIB:.2f} GiB"
        lines.append(f"| {weights} | {side} | {numbers} |")
    ours, theirs = (costs[side] for side in SIDES)
    if ours is not None and theirs is not None:
        device = f"{theirs.device_bytes / ours.device_bytes:.2f}" if ours.device_bytes else "–"
        times = f"{theirs.seconds / ours.seconds:.2f} | {theirs.processor_seconds / ours.processor_seconds:.2f}"
        ratios = f"{times} | {device} | {theirs.host_bytes / ours.host_bytes:.2f}"
        lines.append(f"| {weights} | whole ÷ layers | {ratios} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work-dir", type=Path, required=True, help="scratch directory: three times the model's bytes")
    parser.add_argument("--shape", choices=SHAPES, default="13b")
    parser.add_argument("--layers", type=int, help="instead of all of the shape's")
    parser.add_argument("--formats", nargs="+", default=["fp8", "int4_awq"])
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--sample-tokens", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--child", nargs=3, metavar=("SIDE", "MODEL", "OUT"), help=argparse.SUPPRESS)
    parser.add_argument("--format", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        side, model_dir, out_dir = options.child
        print(json.dumps(asdict(run_side(side, Path(model_dir), Path(out_dir), options))))
        return 0
    directory = options.work_dir / f"quantize-{os.getpid()}"
    (directory / "model").mkdir(parents=True)
    failed = False
    try:
        generate(directory / "model", options.layers or NUM_LAYERS[options.shape], SHAPES[options.shape])
        headings = ("format", "side", "time", "processor time", "peak device memory", "peak host memory")
        print("| " + " | ".join(headings) + " |\n" + "|---" * len(headings) + "|", flush=True)
        for weights in options.formats:
            costs = rounds(weights, directory / "model", directory, options)
            failed |= costs["layers"] is None
            print(render(weights, costs), flush=True)
    finally:
        shutil.rmtree(directory)
    return 5 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

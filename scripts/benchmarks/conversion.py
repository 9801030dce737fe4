"""Time the streaming conversion against `cp` + fsync on generated Llama-2-13B-shaped shards, and watch its memory.

    python scripts/benchmarks/conversion.py --work-dir /fast/disk --layers 2 8 20 [--pairs 5] [--json out.json]

For each number of layers it writes float16 shards (1.8 GiB for 2 layers, 12.4 GiB for 20, and twice as much again for
the outputs; removed afterwards), then runs conversion and copy in turn. Both read the same shards; before each run
their pages are dropped from the page cache (`--cache warm` keeps them). The conversion runs in a process of its own,
whose anonymous memory (RssAnon of /proc/PID/status) is sampled every few milliseconds. At last the compiler's own int8
and int4 quantization of the converted weights is timed.

    ratio = copy seconds / conversion seconds, median over pairs; 1.0 means as fast as cp + fsync
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scalellm_trt import model_spec
from scalellm_trt.checkpoint.dtypes import RAW_DTYPES
from scalellm_trt.checkpoint.formats import config_for
from scalellm_trt.checkpoint.layout import layer_prefix, linears, source_tensors
from scalellm_trt.checkpoint.reader import CheckpointReader
from scalellm_trt.checkpoint.streaming import convert_weights
from scalellm_trt.checkpoint.tensor_file import TensorFileWriter, TensorLayout
from scalellm_trt.checkpoint.weight_only import native_quantize

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from scalellm_trt.checkpoint.dtypes import RawArray
    from scalellm_trt.checkpoint.weight_only import WeightBits

GIB = 1 << 30
LLAMA_2_13B = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 32000,
    "hidden_size": 5120,
    "intermediate_size": 13824,
    "num_attention_heads": 40,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
}
LAYERS_PER_SHARD = 4
SAMPLE_EVERY_S = 0.005


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One size. Seconds are lists with one entry per pair; rates are of the shards' bytes."""

    num_layers: int
    shard_bytes: int
    peak_rss_anon_bytes: int
    convert_s: list[float]
    copy_s: list[float]
    ratio: float
    int8_s: float
    int4_s: float
    num_quantized_weights: int


def main() -> None:
    parser = argparse.ArgumentParser(description="Streaming conversion against cp + fsync")
    parser.add_argument("--work-dir", type=Path, required=True, help="scratch directory on the disk to measure")
    parser.add_argument("--layers", type=int, nargs="+", default=[2, 8, 20])
    parser.add_argument("--pairs", type=int, default=5, help="interleaved pairs of conversion and copy")
    parser.add_argument("--cache", choices=("cold", "warm"), default="cold", help="page cache of the shards")
    parser.add_argument("--json", type=Path, help="also write the results here")
    parser.add_argument("--convert", type=Path, nargs=2, metavar=("MODEL", "OUT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.convert:
        convert(*arguments.convert)
        return
    columns = ("layers", 6), ("shards", 10), ("RssAnon", 8), ("convert", 16), ("cp + fsync", 16), ("ratio", 6)
    print(" ".join(f"{title:>{width}}" for title, width in (*columns, ("int8", 8), ("int4", 8))))
    results = []
    for num_layers in arguments.layers:
        directory = arguments.work_dir / f"conversion-{num_layers}"
        try:
            results.append(measure(directory, num_layers, arguments.pairs, cold=arguments.cache == "cold"))
        finally:
            shutil.rmtree(directory, ignore_errors=True)
        print(render(results[-1]), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(result) for result in results], indent=2) + "\n")


def render(result: Result) -> str:
    size, weights = result.shard_bytes, result.num_quantized_weights
    convert_s, copy_s = statistics.median(result.convert_s), statistics.median(result.copy_s)
    return (
        f"{result.num_layers:>6} {size / GIB:>6.2f} GiB {result.peak_rss_anon_bytes / GIB:>5.2f} GiB "
        f"{convert_s:>6.2f} s {size / convert_s / 1e9:>3.1f} GB/s {copy_s:>6.2f} s {size / copy_s / 1e9:>3.1f} GB/s "
        f"{result.ratio:>6.2f} {weights / result.int8_s / 1e6:>4.0f} M/s {weights / result.int4_s / 1e6:>4.0f} M/s"
    )


def measure(directory: Path, num_layers: int, num_pairs: int, *, cold: bool) -> Result:
    shutil.rmtree(directory, ignore_errors=True)
    model = directory / "model"
    model.mkdir(parents=True)
    generate(model, num_layers)
    shards = sorted(model.glob("*.safetensors"))
    convert_s, copy_s, peaks = [], [], []
    for _ in range(num_pairs):
        settle(shards, cold=cold)
        seconds, peak = timed_conversion(model, directory / "checkpoint")
        convert_s.append(seconds)
        peaks.append(peak)
        settle(shards, cold=cold)
        copy_s.append(timed_copy(shards, directory / "copy"))
        shutil.rmtree(directory / "copy")
    int8_s, int4_s, num_weights = timed_quantization(directory / "checkpoint")
    return Result(
        num_layers=num_layers,
        shard_bytes=sum(path.stat().st_size for path in shards),
        peak_rss_anon_bytes=max(peaks),
        convert_s=convert_s,
        copy_s=copy_s,
        ratio=statistics.median(copied / converted for copied, converted in zip(copy_s, convert_s, strict=True)),
        int8_s=int8_s,
        int4_s=int4_s,
        num_quantized_weights=num_weights,
    )


def generate(directory: Path, num_layers: int, shape: Mapping[str, object] = LLAMA_2_13B) -> None:
    """Write config.json and float16 shards; values repeat one normally distributed block, shifted."""
    config = {**shape, "num_hidden_layers": num_layers}
    (directory / "config.json").write_text(json.dumps(config))
    block = (np.random.default_rng(0).standard_normal(1 << 22, dtype=np.float32) * 0.02).astype(np.float16)
    shards: dict[str, dict[str, TensorLayout]] = {}
    for source in source_tensors(model_spec.from_hf_config(config)).values():
        for name, rows in source.parts:
            layer = int(name.split(".")[2]) // LAYERS_PER_SHARD if ".layers." in name else "rest"
            layout = TensorLayout(dtype="F16", shape=(rows, *source.shape[1:]))
            shards.setdefault(f"model-{layer}.safetensors", {})[name] = layout
    index = {name: file_name for file_name, layouts in shards.items() for name in layouts}
    (directory / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    for file_name, layouts in shards.items():
        with TensorFileWriter(directory / file_name, layouts) as writer:
            for name in writer.names():
                writer.write(name, repeated(block, layouts[name].size_bytes // block.itemsize))


def repeated(block: RawArray, num_elements: int) -> Iterator[RawArray]:
    for start in range(0, num_elements, block.size):
        yield block[: min(block.size, num_elements - start)]


def settle(shards: list[Path], *, cold: bool) -> None:
    """Wait until nothing is left to write back; drop the shards from the page cache if asked to."""
    os.sync()
    for path in shards if cold else ():
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def convert(model: Path, out: Path) -> None:
    """Run in the child: convert, and print the seconds that it took, imports left out."""
    config = config_for(model_spec.read(model), "int8_wo", "float16", "fp8")
    start = time.perf_counter()
    convert_weights(model, config, out, lambda *_: None)
    print(time.perf_counter() - start)


def timed_conversion(model: Path, out: Path) -> tuple[float, int]:
    """Return seconds and peak RssAnon in bytes of one conversion in a process of its own."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    argv = [sys.executable, __file__, "--work-dir", str(out), "--convert", str(model), str(out)]
    child = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    peak = 0
    while child.poll() is None:
        peak = max(peak, rss_anon_bytes(child.pid))
        time.sleep(SAMPLE_EVERY_S)
    output = child.communicate()[0]
    if child.returncode != 0:
        sys.exit(f"the conversion failed with exit code {child.returncode}")
    return float(output), peak


def rss_anon_bytes(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("RssAnon")), 0)


def timed_copy(shards: list[Path], out: Path) -> float:
    out.mkdir()
    start = time.perf_counter()
    subprocess.run(["cp", *map(str, shards), str(out)], check=True)
    for path in shards:
        descriptor = os.open(out / path.name, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    return time.perf_counter() - start


def timed_quantization(checkpoint: Path) -> tuple[float, float, int]:
    """Return seconds for int8, for int4, and the number of weights: every linear of every layer, one thread."""
    reader = CheckpointReader(checkpoint)
    num_weights, seconds = 0, {8: 0.0, 4: 0.0}
    bits_list: tuple[WeightBits, WeightBits] = (8, 4)
    for layer in range(reader.config.spec.num_layers):
        for name in linears(reader.config.spec):
            weight = np.array(reader.tensor(f"{layer_prefix(layer)}.{name}.weight"), RAW_DTYPES["F16"])
            num_weights += weight.size
            for bits in bits_list:
                start = time.perf_counter()
                native_quantize(weight, bits, "float16")
                seconds[bits] += time.perf_counter() - start
    return seconds[8], seconds[4], num_weights


if __name__ == "__main__":
    main()

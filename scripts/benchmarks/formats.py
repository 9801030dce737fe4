"""Write a checkpoint in every format that one model can have and print what each is worth; exit 8 if one is wrong.

Run as `python -m scripts.benchmarks.formats`; needs the extras `cpu` and `quantize`. Per weight format and KV cache
format: the problems that `verify` finds, the relative L2 error of the dequantized weights, the tensors unlike those of
ModelOpt's own export of the whole model, the KV scales against keys and values that transformers computes, and the
perplexity where the CPU engine runs the format. `--compare-all` compares every KV format with ModelOpt, not only one.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import shutil
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scalellm_trt import model_source, model_spec
from scalellm_trt.checkpoint.calibration import bundled_text, draw_samples, read_tokenizer
from scalellm_trt.checkpoint.config import NATIVE_ALGOS
from scalellm_trt.checkpoint.formats import QUANT_ALGOS, config_for, needs_calibration
from scalellm_trt.checkpoint.layerwise import calibration_batches
from scalellm_trt.checkpoint.layout import kv_scale_name, quantized_linears
from scalellm_trt.checkpoint.modelopt import quantize
from scalellm_trt.checkpoint.modelopt_rules import rules_for
from scalellm_trt.checkpoint.reader import CheckpointReader
from scalellm_trt.checkpoint.streaming import convert_weights
from scalellm_trt.checkpoint.tensor_file import TensorFile
from scalellm_trt.checkpoint.verify import verify
from scripts.benchmarks.accuracy import (
    CHUNK_TOKENS,
    EXIT_MISSED,
    SHA256,
    SOURCE,
    Score,
    compiled_score,
    ignore_progress,
    report,
    transformers_logits,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from scalellm_trt.checkpoint.calibration import CalibrationSamples
    from scalellm_trt.checkpoint.config import CheckpointConfig
    from scalellm_trt.checkpoint.formats import KvCacheDtype
    from scalellm_trt.model_spec import ModelSpec

KV_FORMATS: tuple[KvCacheDtype, ...] = ("float16", "int8", "fp8")
RUNS_ON_CPU = ("full_prec", "int8_wo", "int4_wo", "int4_awq")
# One more rounding than the reference: of the quotient, to float32.
MAX_KV_SCALE_ERROR = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One checkpoint."""

    weights: str
    kv_cache_dtype: str
    mib: float
    problems: int
    error: float
    unlike_modelopt: str
    kv_scales: str
    perplexity: str
    seconds: float
    is_right: bool

    def cells(self) -> tuple[str, ...]:
        """Return the table's cells."""
        error = f"{self.error:.2e}" if self.error else "0"
        sound = "sound" if not self.problems else f"{self.problems} problems"
        kv = "auto" if self.kv_cache_dtype == "float16" else self.kv_cache_dtype
        numbers = (f"{self.mib:.1f}", sound, error, self.unlike_modelopt, self.kv_scales, self.perplexity)
        return (self.weights, kv, *numbers, f"{self.seconds:.0f}")


HEADINGS = ("weights", "KV", "MiB", "verify", "weight error", "unlike ModelOpt", "KV scales", "perplexity", "s")


class Bench:
    """What all checkpoints of a model are measured with."""

    def __init__(self, model_dir: Path, options: argparse.Namespace, work_dir: Path) -> None:
        self.model_dir, self.options, self.work_dir = model_dir, options, work_dir
        self.spec: ModelSpec = model_spec.read(model_dir)
        self.samples: CalibrationSamples = draw_samples(
            "bundled",
            read_tokenizer(model_dir),
            num_samples=options.samples,
            max_seq_len=options.sample_tokens,
            seed=1234,
        )
        self.token_ids = read_tokenizer(model_dir)(bundled_text("evaluation.txt"))[: options.tokens]
        report("transformers float32")
        self.reference = transformers_logits(model_dir, self.token_ids, work_dir / "logits")
        self.largest = largest_keys_and_values(model_dir, self.samples)
        self.full: CheckpointReader | None = None

    def rows(self) -> Iterator[Row]:
        """Yield one row per format, the full-precision one first: the others are compared with it."""
        for weights in QUANT_ALGOS:
            for kv_cache_dtype in KV_FORMATS:
                report(f"{weights} with {kv_cache_dtype} keys and values")
                yield self.row(weights, kv_cache_dtype)

    def row(self, weights: str, kv_cache_dtype: KvCacheDtype) -> Row:
        """Write and measure one checkpoint."""
        config = config_for(self.spec, weights, "float16", kv_cache_dtype, group_size=self.options.group_size)
        out_dir = self.work_dir / f"{weights}-{kv_cache_dtype}"
        out_dir.mkdir()
        started = time.monotonic()
        if needs_calibration(config):
            quantize(self.model_dir, config, self.samples, out_dir, ignore_progress, device="cpu")
        else:
            convert_weights(self.model_dir, config, out_dir, ignore_progress)
        seconds = time.monotonic() - started
        problems = verify(out_dir, self.spec)
        reader = CheckpointReader(out_dir)
        self.full = self.full or reader
        unlike = self.unlike_modelopt(config, out_dir)
        kv_scales, is_kv_right = self.kv_scales(config, reader)
        row = Row(
            weights=weights,
            kv_cache_dtype=kv_cache_dtype,
            mib=(out_dir / "rank0.safetensors").stat().st_size / 2**20,
            problems=len(problems),
            error=self.error(reader),
            unlike_modelopt=unlike,
            kv_scales=kv_scales,
            perplexity=self.perplexity(weights, kv_cache_dtype, out_dir),
            seconds=seconds,
            is_right=not problems and is_kv_right and unlike in ("–", "0"),
        )
        if reader is not self.full:
            shutil.rmtree(out_dir)
        return row

    def error(self, reader: CheckpointReader) -> float:
        """Return the L2 norm of what the format changed in all linears, relative to theirs."""
        if self.full is None or reader is self.full or reader.config.quant_algo is None:
            return 0.0
        squared, norm = 0.0, 0.0
        for prefix in quantized_linears(self.spec):
            original = self.full.dequantize(prefix)
            squared += float(np.square(reader.dequantize(prefix) - original, dtype=np.float64).sum())
            norm += float(np.square(original, dtype=np.float64).sum())
        return float(np.sqrt(squared / norm))

    def unlike_modelopt(self, config: CheckpointConfig, out_dir: Path) -> str:
        """Count the tensors unlike ModelOpt's, for formats that it exports too."""
        if config.quant_algo in NATIVE_ALGOS:
            return "–"
        wanted = "INT8" if config.quant_algo is not None else None
        if config.kv_cache_quant_algo != wanted and not self.options.compare_all:
            return "–"
        theirs = modelopt_export(self.model_dir, config, self.samples, self.work_dir / "theirs")
        count = len(list(different_tensors(TensorFile(out_dir / "rank0.safetensors"), theirs)))
        shutil.rmtree(self.work_dir / "theirs")
        return str(count)

    def kv_scales(self, config: CheckpointConfig, reader: CheckpointReader) -> tuple[str, bool]:
        """Compare a checkpoint's KV scales with those of the reference; also return whether they are right."""
        if config.kv_cache_quant_algo is None:
            return "–", not any("cache" in name for name in reader.names())
        scales = [float(reader.tensor(kv_scale_name(layer))[0]) for layer in range(self.spec.num_layers)]
        if config.kv_cache_quant_algo == "FP8":
            expected = [max(1.0, value / 448) if needs_calibration(config) else 1.0 for value in self.largest]
        else:
            expected = [value / 127 for value in self.largest]
        error = max(abs(scale / want - 1) for scale, want in zip(scales, expected, strict=True))
        return f"{min(scales):.3g}..{max(scales):.3g} (±{error:.0e})", error <= MAX_KV_SCALE_ERROR

    def perplexity(self, weights: str, kv_cache_dtype: str, out_dir: Path) -> str:
        """Run the CPU engine; its own KV cache has nothing to do with the checkpoint's scales."""
        if weights not in RUNS_ON_CPU or kv_cache_dtype != "float16":
            return "–"
        return f"{compiled_score(out_dir, self.token_ids, self.reference).perplexity:.3f}"

    def original_perplexity(self) -> float:
        """Return the perplexity of transformers in float32."""
        score = Score(self.token_ids)
        for start in range(0, len(self.token_ids), CHUNK_TOKENS):
            rows = self.reference[start : start + CHUNK_TOKENS]
            score.add(start, rows, rows)
        return score.perplexity


def largest_keys_and_values(model_dir: Path, samples: CalibrationSamples) -> list[float]:
    """Return the largest magnitude among each layer's keys (after rotary embedding) and values, over the samples.

    Read from the KV cache of the original model, which knows nothing of quantizers.
    """
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32, local_files_only=True).eval()
    largest = [0.0] * model.config.num_hidden_layers
    with torch.inference_mode():
        for ids in calibration_batches(samples):
            cache = model.model(torch.from_numpy(ids), use_cache=True).past_key_values
            for layer, value in enumerate(largest):
                both = (cache.layers[layer].keys, cache.layers[layer].values)
                largest[layer] = max(value, *(tensor.abs().max().item() for tensor in both))
    return largest


def modelopt_export(
    model_dir: Path, config: CheckpointConfig, samples: CalibrationSamples, out_dir: Path
) -> TensorFile:
    """Quantize and export the whole model by ModelOpt alone."""
    import modelopt.torch.quantization as mtq
    import torch
    from modelopt.torch.export import export_tensorrt_llm_checkpoint
    from transformers import AutoModelForCausalLM

    decoder_type = "qwen" if config.spec.architecture.startswith("Qwen") else "llama"
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32, local_files_only=True).eval()
        batches = [torch.from_numpy(ids) for ids in calibration_batches(samples)]
        rules = rules_for(config.quant_algo, config.kv_cache_quant_algo, config.group_size)
        with torch.no_grad():
            mtq.quantize(model, rules, lambda module: [module.model(ids, use_cache=False) for ids in batches])
        with torch.inference_mode():
            export_tensorrt_llm_checkpoint(
                model, decoder_type, torch.float16, export_dir=out_dir, inference_tensor_parallel=1
            )
    return TensorFile(out_dir / "rank0.safetensors")


def different_tensors(ours: TensorFile, theirs: TensorFile) -> Iterator[str]:
    """Yield the names of tensors that one lacks or that differ; the vocabulary that ModelOpt pads is cut."""
    per_tensor = (".k_cache_scaling_factor", ".v_cache_scaling_factor")
    names = {name for name in theirs.entries if not name.endswith(per_tensor)}
    yield from names ^ ours.entries.keys()
    for name in names & ours.entries.keys():
        one: NDArray[np.generic] = ours.raw(name)
        other = theirs.raw(name)
        if ours.dtype(name) != theirs.dtype(name) or not np.array_equal(one, other[: len(one)]):
            yield name


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=SOURCE, help="a recipe's model.source (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=2048, help="tokens of the evaluation text")
    parser.add_argument("--samples", type=int, default=4, help="calibration samples")
    parser.add_argument("--sample-tokens", type=int, default=256, help="tokens of each")
    parser.add_argument("--group-size", type=int, default=64, help="of int4_awq and w4a8_awq")
    parser.add_argument("--compare-all", action="store_true", help="compare every KV format with ModelOpt")
    parser.add_argument("--work-dir", type=Path, default=Path("builds"), help="needs 4 GB for a while")
    options = parser.parse_args()
    options.work_dir.mkdir(parents=True, exist_ok=True)
    sha256 = SHA256 if options.model == SOURCE else None
    cache_dir = options.work_dir / ".cache" / "models"
    model = model_source.resolve(options.model, sha256, cache_dir, ignore_progress, base_dir=Path())
    rows = []
    with tempfile.TemporaryDirectory(prefix="formats-", dir=options.work_dir) as work_dir:
        bench = Bench(model.directory, options, Path(work_dir))
        print(f"perplexity of transformers fp32, {len(bench.token_ids)} tokens: {bench.original_perplexity():.3f}\n")
        print("| " + " | ".join(HEADINGS) + " |\n" + "|---" * len(HEADINGS) + "|", flush=True)
        for row in bench.rows():
            rows.append(row)
            print("| " + " | ".join(row.cells()) + " |" + ("" if row.is_right else "  WRONG"), flush=True)
    return 0 if all(row.is_right for row in rows) else EXIT_MISSED


if __name__ == "__main__":
    sys.exit(main())

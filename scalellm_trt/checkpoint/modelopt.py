"""A Hugging Face model and token samples in, an int4_awq checkpoint out, calibrated by NVIDIA ModelOpt on the CPU.

Only the tensors that quantization made are ModelOpt's: the others are copied from the model, and config.json is ours
(ModelOpt's differs with and without tensorrt_llm installed, and pads the vocabulary to a multiple of 64).
"""

from __future__ import annotations

import contextlib
import copy
import importlib.metadata
import io
import json
import shutil
import sys
import warnings
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from scalellm_trt.checkpoint.config import CheckpointConfig, KvCacheQuantAlgo
from scalellm_trt.checkpoint.layout import linear_shapes, quantized_linears, tensor_layouts
from scalellm_trt.checkpoint.source import SourceWeights
from scalellm_trt.checkpoint.streaming import convert_weights
from scalellm_trt.checkpoint.tensor_file import TensorFile
from scalellm_trt.errors import Problem, ScaleLLMError, StageError, ToolchainError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from scalellm_trt.checkpoint.calibration import CalibrationSamples
    from scalellm_trt.checkpoint.dtypes import CheckpointDtype
    from scalellm_trt.model_spec import Architecture, ModelSpec

    Progress = Callable[[str, float], None]

MAX_AWQ_SAMPLES: Final = 32
"""More do not change the result and cost hours: NVIDIA's quantize.py has the same cap."""

CALIBRATION_RECORD: Final = "calibration.json"

_PACKAGES: Final = ("torch", "transformers", "nvidia-modelopt")
# From this version on `quant_cfg` is a list of rules; before, it was a dictionary.
_OLDEST_MODELOPT: Final = (0, 44)
_DECODER_TYPES: Final[dict[Architecture, str]] = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "llama",
    "Qwen2ForCausalLM": "qwen",
    "Qwen3ForCausalLM": "qwen",
}
_QUANTIZED_PARTS: Final = ("weight", "weights_scaling_factor", "prequant_scaling_factor")
# A linear runs once per batch while statistics are collected; the search runs it once more and with 11 scalings.
_STATISTICS_COST, _SEARCH_COST = 1, 12
_CALIBRATION_SHARE: Final = 0.9
_SMALLEST_GROUP: Final = 16
_BATCH_TOKENS: Final = 2048
_NUM_TAIL_LINES: Final = 10


def awq_config(
    spec: ModelSpec,
    dtype: CheckpointDtype,
    group_size: int,
    kv_cache_dtype: Literal["float16", "int8", "fp8"] = "float16",
) -> CheckpointConfig:
    """Return the config of the checkpoint that `quantize_awq` writes.

    Args:
        spec: the model.
        dtype: element type of what is not quantized.
        group_size: input columns that share one scale.
        kv_cache_dtype: as in `streaming.streamed_config`.

    Raises:
        UnsupportedError: the group size does not divide every input dimension, an output dimension is odd, or the KV
            cache is int8.
    """
    problems = _group_problems(spec, group_size)
    if kv_cache_dtype == "int8":
        message = "int8 needs calibrated scales, which are not collected yet"
        hint = "Use auto (16-bit) or, on cards with compute capability 8.9 and higher, fp8."
        problems.append(Problem(key="quantization.kv_cache_dtype", message=message, hint=hint))
    if problems:
        raise UnsupportedError(problems)
    kv_algo: KvCacheQuantAlgo | None = "FP8" if kv_cache_dtype == "fp8" else None
    return CheckpointConfig(
        spec=spec, dtype=dtype, quant_algo="W4A16_AWQ", kv_cache_quant_algo=kv_algo, group_size=group_size
    )


def _group_problems(spec: ModelSpec, group_size: int) -> list[Problem]:
    shapes = linear_shapes(spec).values()
    in_sizes = sorted({in_size for _, in_size in shapes})
    problems = [
        Problem(
            key="quantization.weights",
            message=f"int4_awq packs two output rows into a byte, and a projection has {out_size} rows",
            hint="Use int4_wo or int8_wo.",
        )
        for out_size in sorted({out_size for out_size, _ in shapes if out_size % 2})
    ]
    if any(in_size % group_size for in_size in in_sizes):
        sizes = ", ".join(str(size) for size in in_sizes)
        allowed = [
            size for size in range(_SMALLEST_GROUP, in_sizes[0] + 1) if not any(in_size % size for in_size in in_sizes)
        ]
        hint = f"These do: {', '.join(str(size) for size in allowed)}. TensorRT-LLM's kernels know 64 and 128."
        message = f"{group_size} does not divide the input dimensions {sizes}"
        problems.append(Problem(key="quantization.group_size", message=message, hint=hint if allowed else None))
    return problems


def tool_versions() -> dict[str, str]:
    """Return name → version of the libraries that decide the result; imports none of them.

    Raises:
        ToolchainError: one is missing, or ModelOpt is too old.
    """
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError as error:
            message = f"int4_awq needs {name}, which is not installed"
            raise ToolchainError(message, hint="pip install 'scalellm-trt[quantize]'") from error
    found = versions["nvidia-modelopt"]
    if tuple(int(part) for part in found.split(".")[:2]) < _OLDEST_MODELOPT:
        message = f"int4_awq needs nvidia-modelopt 0.44 or newer, found {found}"
        raise ToolchainError(message, hint="pip install 'scalellm-trt[quantize]'")
    return versions


def quantize_awq(
    model_dir: Path, config: CheckpointConfig, samples: CalibrationSamples, out_dir: Path, progress: Progress
) -> None:
    """Calibrate, quantize and write the checkpoint into the existing directory `out_dir`.

    Beside the files of every checkpoint there is `CALIBRATION_RECORD`: which samples were used, and the versions of the
    libraries.

    The model is held in host memory as float32 (4 bytes per parameter), plus the activations of one batch.

    Args:
        model_dir: a Hugging Face directory with safetensors.
        config: from `awq_config`, with the spec of this very model.
        samples: from `calibration.draw_samples`; more than `MAX_AWQ_SAMPLES` cost time and give nothing.
        out_dir: an empty directory on a disk with room for the checkpoint twice.
        progress: called before every batch of each of the two passes, and while writing.

    Raises:
        ToolchainError: torch, transformers or ModelOpt is missing or too old.
        ArtefactError: the model's files are incomplete or damaged.
        UnsupportedError: the model has parts that we would have to drop.
        StageError: ModelOpt failed, or the disk is full.
    """
    tool_versions()
    SourceWeights(model_dir).check(config.spec)
    scratch = out_dir / "modelopt-export"
    with _quiet(progress) as report:
        report("loading the model", 0.0)
        _export(model_dir, config, samples, scratch, report)
    calibrated = _quantized_tensors(TensorFile(scratch / "rank0.safetensors"), config)

    def write_progress(activity: str, share: float) -> None:
        progress(activity, _CALIBRATION_SHARE + (1 - _CALIBRATION_SHARE) * share)

    convert_weights(model_dir, config, out_dir, write_progress, calibrated)
    record = {**samples.describe(), **tool_versions()}
    (out_dir / CALIBRATION_RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    shutil.rmtree(scratch)


def _export(
    model_dir: Path, config: CheckpointConfig, samples: CalibrationSamples, scratch: Path, report: Progress
) -> None:
    """Load, calibrate and let ModelOpt write its checkpoint into `scratch`."""
    import modelopt.torch.quantization as mtq
    import torch
    from modelopt.torch.export import export_tensorrt_llm_checkpoint
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32, local_files_only=True).eval()
    batches = calibration_batches(samples)
    passes = iter(
        (("collecting statistics", 0, _STATISTICS_COST), ("searching scales", _STATISTICS_COST, _SEARCH_COST))
    )

    def forward_loop(model: Any) -> None:  # noqa: ANN401
        activity, before, cost = next(passes)
        for index, ids in enumerate(batches):
            share = (before + cost * index / len(batches)) / (_STATISTICS_COST + _SEARCH_COST)
            report(f"{activity}: batch {index + 1} of {len(batches)}", _CALIBRATION_SHARE * share)
            model.model(torch.from_numpy(ids), use_cache=False)  # the output head is not quantized

    rules = _awq_rules(copy.deepcopy(mtq.INT4_AWQ_CFG), config.group_size)
    with torch.no_grad():
        mtq.quantize(model, rules, forward_loop)
    report("exporting", _CALIBRATION_SHARE)
    with torch.inference_mode():
        export_tensorrt_llm_checkpoint(
            model,
            _DECODER_TYPES[config.spec.architecture],
            getattr(torch, config.dtype),
            export_dir=scratch,
            inference_tensor_parallel=1,  # the default divides by the number of GPUs
        )


def calibration_batches(samples: CalibrationSamples) -> list[NDArray[np.int64]]:
    """Stack samples of equal length to batches of about `_BATCH_TOKENS` tokens, each (samples, length) int64.

    The search quantizes every weight 11 times for each batch, however small: one sample at a time is several times as
    slow. A mean over a batch of equal lengths is the mean of the means, so that scales stay the same.
    """
    by_length: dict[int, list[NDArray[np.int32]]] = {}
    for ids in samples.token_ids:
        by_length.setdefault(ids.size, []).append(ids)
    batches = []
    for length, group in by_length.items():
        step = max(1, _BATCH_TOKENS // length)
        batches += [np.stack(group[start : start + step]).astype(np.int64) for start in range(0, len(group), step)]
    return batches


def _awq_rules(rules: dict[str, Any], group_size: int | None) -> dict[str, Any]:
    """Return ModelOpt's INT4 AWQ rules with another group size."""
    for rule in rules["quant_cfg"]:
        if rule["quantizer_name"] == "*weight_quantizer" and "cfg" in rule:
            rule["cfg"]["block_sizes"][-1] = group_size
    return rules


def _quantized_tensors(exported: TensorFile, config: CheckpointConfig) -> TensorFile:
    """Leave in ModelOpt's file the tensors that quantization made, and check that all are there.

    Raises:
        StageError: one is missing or has another shape.
    """
    layouts = tensor_layouts(config)
    names = [f"{prefix}.{part}" for prefix in quantized_linears(config.spec) for part in _QUANTIZED_PARTS]
    for name in names:
        found = exported.entries[name].shape if name in exported.entries else None
        if found != layouts[name].shape:
            message = f"ModelOpt exported {name} as {found}, {layouts[name].shape} was expected"
            raise StageError(message, hint=f"Found nvidia-modelopt {tool_versions()['nvidia-modelopt']}.")
    exported.entries = {name: exported.entries[name] for name in names}
    return exported


@contextlib.contextmanager
def _quiet(progress: Progress) -> Iterator[Progress]:
    """Keep what the libraries print for the error message; yield a `progress` that still reaches the terminal.

    Raises:
        StageError: in place of any exception that is not ours.
    """
    printed = io.StringIO()
    stdout, stderr = sys.stdout, sys.stderr

    def report(activity: str, share: float) -> None:
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
            progress(activity, share)

    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            warnings.simplefilter("ignore")
            yield report
    except ScaleLLMError:
        raise
    except Exception as error:
        tail = "".join(f"\n  {line}" for line in printed.getvalue().splitlines()[-_NUM_TAIL_LINES:])
        message = f"ModelOpt failed: {type(error).__name__}: {error}{tail}"
        raise StageError(message, hint="int8_wo and int4_wo need no calibration.") from error

"""A recipe's format names in, the config of the checkpoint out, or every reason why this model cannot have it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from scalellm_trt.checkpoint.config import GROUPED_ALGOS, NATIVE_ALGOS, CheckpointConfig, KvCacheQuantAlgo, QuantAlgo
from scalellm_trt.checkpoint.layout import linears
from scalellm_trt.checkpoint.shards import rank_problems
from scalellm_trt.errors import Problem, UnsupportedError

if TYPE_CHECKING:
    from scalellm_trt.checkpoint.dtypes import CheckpointDtype
    from scalellm_trt.model_spec import ModelSpec

EngineFormat = Literal["full_prec", "int8_wo", "int4_wo", "int4_awq", "w4a8_awq", "int8_sq", "fp8"]
KvCacheDtype = Literal["float16", "bfloat16", "int8", "fp8"]

QUANT_ALGOS: Final[dict[str, QuantAlgo | None]] = {
    "full_prec": None,
    "int8_wo": "W8A16",
    "int4_wo": "W4A16",
    "int4_awq": "W4A16_AWQ",
    "w4a8_awq": "W4A8_AWQ",
    "int8_sq": "W8A8_SQ_PER_CHANNEL",
    "fp8": "FP8",
}
"""TensorRT-LLM's name of each weight format that its checkpoints know."""

_KV_CACHE_ALGOS: Final[dict[KvCacheDtype, KvCacheQuantAlgo]] = {"int8": "INT8", "fp8": "FP8"}
_SMALLEST_GROUP: Final = 16


def config_for(
    spec: ModelSpec,
    weights: str,
    dtype: CheckpointDtype,
    kv_cache_dtype: KvCacheDtype = "float16",
    *,
    group_size: int | None = None,
    tp_size: int = 1,
    pp_size: int = 1,
) -> CheckpointConfig:
    """Return the config of a checkpoint in these formats.

    Args:
        spec: the model.
        weights: the recipe's weight format.
        dtype: element type of what is not quantized.
        kv_cache_dtype: `float16` and `bfloat16` are the engine's 16-bit default and need no scale.
        group_size: inputs that share a scale; only int4_awq and w4a8_awq have groups.
        tp_size: tensor parallel ranks.
        pp_size: pipeline parallel ranks.

    Raises:
        UnsupportedError: with every reason.
    """
    if weights not in QUANT_ALGOS:
        message = f"{weights!r} has no form in a TensorRT-LLM checkpoint"
        hint = f"Allowed: {', '.join(QUANT_ALGOS)}. nvfp4 is for backend llmapi."
        raise UnsupportedError([Problem(key="quantization.weights", message=message, hint=hint)])
    algo = QUANT_ALGOS[weights]
    config = CheckpointConfig(
        spec=spec,
        dtype=dtype,
        quant_algo=algo,
        kv_cache_quant_algo=_KV_CACHE_ALGOS.get(kv_cache_dtype),
        group_size=group_size if algo in GROUPED_ALGOS else None,
        tp_size=tp_size,
        pp_size=pp_size,
    )
    problems = [*_weight_problems(spec, weights, config.group_size), *rank_problems(config)]
    if problems:
        raise UnsupportedError(problems)
    return config


def needs_calibration(config: CheckpointConfig) -> bool:
    """Tell whether scales must be found by running the model over text.

    FP8 scales of a KV cache need it only beside calibrated weights: ModelOpt's export raises them to at least 1.0, and
    1.0 is what NVIDIA's own converter writes for weight-only formats.
    """
    is_packed = config.quant_algo is not None and config.quant_algo not in NATIVE_ALGOS
    return is_packed or config.kv_cache_quant_algo == "INT8"


def _weight_problems(spec: ModelSpec, weights: str, group_size: int | None) -> list[Problem]:
    algo = QUANT_ALGOS[weights]
    if algo == "W8A8_SQ_PER_CHANNEL" and spec.num_experts:
        message = "int8_sq has no form for mixtures of experts: neither ModelOpt nor TensorRT-LLM smooths experts"
        return [Problem(key="quantization.weights", message=message, hint="Use fp8, int4_awq or int8_wo.")]
    if algo not in GROUPED_ALGOS:
        return []
    if group_size is None:  # our own bug: the plan sets it
        message = f"{weights} needs a group_size"
        raise AssertionError(message)
    problems = [
        Problem(
            key="quantization.weights",
            message=f"{weights} packs two output rows into a byte, and a projection has {out_size} rows",
            hint="Use int4_wo or int8_wo.",
        )
        for out_size in sorted({linear.out_size for linear in linears(spec).values() if linear.out_size % 2})
    ]
    return problems + group_problems(spec, group_size)


def group_problems(spec: ModelSpec, group_size: int) -> list[Problem]:
    """Return why groups of this size do not fit the model's matrices, with the sizes that do."""
    in_sizes = sorted({linear.in_size for linear in linears(spec).values()})
    if not any(in_size % group_size for in_size in in_sizes):
        return []
    sizes = ", ".join(str(size) for size in in_sizes)
    allowed = [
        size for size in range(_SMALLEST_GROUP, in_sizes[0] + 1) if not any(in_size % size for in_size in in_sizes)
    ]
    hint = f"These do: {', '.join(str(size) for size in allowed)}. TensorRT-LLM's kernels know 64 and 128."
    message = f"{group_size} does not divide the input dimensions {sizes}"
    return [Problem(key="quantization.group_size", message=message, hint=hint if allowed else None)]

"""Plans for tests, resolved for a model that need not exist."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from scalellm_trt.artefacts.types import LocalModel
from scalellm_trt.plan import LimitsPlan, Plan, QuantizationPlan, ServingPlan
from tests.fakes.tiny_models import tiny_spec

if TYPE_CHECKING:
    from scalellm_trt.recipe import Calibration, WeightFormat


def tiny_plan(
    *,
    model_dir: Path = Path("model"),
    weights: WeightFormat = "full_prec",
    kv_cache_dtype: str = "float16",
    group_size: int | None = None,
    calibration: Calibration | None = None,
    **changes: object,
) -> Plan:
    """Return the plan of a tiny model on the embedded CPU backend, with `changes` to its fields."""
    plan = Plan(
        name="tiny",
        model=LocalModel(directory=model_dir, source="./model", revision="0" * 64, digest="0" * 64),
        spec=tiny_spec(),
        dtype="float16",
        hardware="cpu",
        backend="openvino",
        toolchain="openvino-2026.4",
        quantization=QuantizationPlan(
            weights=weights,
            group_size=group_size,
            kv_cache_dtype=kv_cache_dtype,  # type: ignore[arg-type]
            calibration=calibration,
        ),
        limits=LimitsPlan(max_batch_size=4, max_input_len=63, max_seq_len=64, max_num_tokens=32),
        serving=ServingPlan(
            batch_scheduler_policy="guaranteed_no_evict",
            kv_cache_reuse=True,
            chunked_context=True,
            kv_cache_tokens=256,
            kv_cache_bytes=65536,
            tokens_per_block=32,
            max_queue_size=8,
        ),
        tp_size=1,
        pp_size=1,
        services=1,
        budgets=(),
        decisions=(),
    )
    return dataclasses.replace(plan, **changes)  # type: ignore[arg-type]


def gpu_plan(
    *,
    toolchain: str = "tensorrt-llm-1.2.1",
    hardware: str = "rtx4090",
    weights: str = "int8_wo",
    kv_cache_dtype: str = "float16",
    **changes: object,
) -> Plan:
    """Return the plan of a tiny model for engines, with `changes` to its fields."""
    return tiny_plan(
        weights=weights,  # type: ignore[arg-type]
        kv_cache_dtype=kv_cache_dtype,
        hardware=hardware,
        backend="tensorrt_llm",
        toolchain=toolchain,
        **changes,  # type: ignore[arg-type]
    )

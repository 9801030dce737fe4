"""The rows that a recipe names, what they do together, and group size and calibration settled for the model."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

from scalellm_trt.plan import combination
from scalellm_trt.plan.rows import resolve_rows
from scalellm_trt.plan.types import QuantizationPlan, ResolvedKvCacheDtype

if TYPE_CHECKING:
    from scalellm_trt.facts import Combination, WeightSupport
    from scalellm_trt.model_spec import ModelSpec
    from scalellm_trt.plan.notes import Notes
    from scalellm_trt.plan.rows import Rows
    from scalellm_trt.recipe import Calibration, Recipe

MAX_AWQ_SAMPLES = 32  # TensorRT-LLM examples/quantization/quantize.py caps AWQ's calibration here; more changes nothing
MIN_GROUP_SIZE = 16


def resolve_formats(recipe: Recipe, spec: ModelSpec, notes: Notes) -> tuple[Rows, QuantizationPlan] | None:
    """Settle rows, formats, group size and calibration; None, with the reasons in `notes`, where a row is missing.

    What the card or the model refuses, and what the formats do without being asked, goes to `notes`.
    """
    rows = resolve_rows(recipe, notes)
    if rows is None:
        return None
    _check_architecture(spec, rows, notes)
    _check_dtype(recipe, rows, notes)
    found = combination.check(rows, spec.architecture, notes)
    if found.is_allowed:
        combination.say_effects(recipe, found, notes)
    return rows, QuantizationPlan(
        weights=recipe.quantization.weights,
        group_size=_group_size(recipe, spec, rows.weights, notes),
        kv_cache_dtype=cast("ResolvedKvCacheDtype", rows.kv.kv_cache_dtype),
        calibration=_calibration(recipe, rows.weights, found, notes),
    )


def _check_architecture(spec: ModelSpec, rows: Rows, notes: Notes) -> None:
    allowed = rows.toolchain.model_architectures
    if spec.architecture not in allowed:
        message = f"{spec.architecture} is not supported by {rows.toolchain.name}"
        notes.refuse_unknown("model.source", message, allowed, None)


def _check_dtype(recipe: Recipe, rows: Rows, notes: Notes) -> None:
    """Check the 16-bit type of a GPU's engine; a CPU's takes all three."""
    key, dtype, hardware = "model.dtype", recipe.model.dtype, rows.hardware
    if hardware.kind == "cpu":
        return
    allowed = [name for name, speed in (("float16", "fp16"), ("bfloat16", "bf16")) if speed in hardware.tflops]
    if dtype not in allowed:
        card = f"{hardware.name} (compute capability {hardware.compute_capability})"
        why = "engines are 16-bit" if dtype == "float32" else f"there is no {dtype} arithmetic on {card}"
        notes.refuse_unknown(key, f"{dtype!r} is not supported on {hardware.name}: {why}", allowed, None)


def _group_size(recipe: Recipe, spec: ModelSpec, weights: WeightSupport, notes: Notes) -> int | None:
    key, group_size = "quantization.group_size", recipe.quantization.group_size
    if weights.scales != "per_group":
        scales = {"none": "keeps its weights floating-point", "per_tensor": "has one scale per matrix"}
        notes.decide(key, "none", f"{weights.weights} {scales.get(weights.scales, 'has a scale per output channel')}")
        return None
    tp_size = recipe.parallel.tp_size
    inputs = {"hidden_size": spec.hidden_size, "num_heads * head_dim": spec.q_size // tp_size}
    inputs["intermediate_size"] = spec.intermediate_size // tp_size
    share = "" if tp_size == 1 else f" on each of {tp_size} ranks"
    sizes = [size for size in _common_divisors(*inputs.values()) if size >= MIN_GROUP_SIZE]
    allowed = [str(size) for size in sizes if not weights.group_sizes or size in weights.group_sizes]
    odd = [f"{name} {size}" for name, size in inputs.items() if size % group_size]
    if odd:
        notes.refuse_unknown(key, f"{group_size} does not divide the model's {', '.join(odd)}{share}", allowed, None)
        return None
    if weights.group_sizes and group_size not in weights.group_sizes:
        message = f"{weights.backend} has no kernels for {weights.weights} with groups of {group_size}"
        notes.refuse_unknown(key, message, allowed, None)
        return None
    notes.decide(key, group_size, f"{group_size} weights share a scale; divides every input size of the model{share}")
    return group_size


def _calibration(recipe: Recipe, weights: WeightSupport, found: Combination, notes: Notes) -> Calibration | None:
    if not weights.is_calibrated and not found.has("needs_calibration"):
        notes.decide("quantization.calibration", "none", f"{weights.weights} needs no calibration text")
        return None
    calibration = recipe.quantization.calibration
    if weights.scales == "per_group" and calibration.num_samples > MAX_AWQ_SAMPLES:
        reason = f"AWQ looks at {MAX_AWQ_SAMPLES} samples at most; more changes little and takes longer"
        notes.decide("quantization.calibration.num_samples", MAX_AWQ_SAMPLES, reason)
        return calibration.model_copy(update={"num_samples": MAX_AWQ_SAMPLES})
    return calibration


def _common_divisors(*numbers: int) -> list[int]:
    common = math.gcd(*numbers)
    return [size for size in range(1, common + 1) if common % size == 0]

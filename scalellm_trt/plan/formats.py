"""The rows of data that a recipe's names mean, and what they do not go together with."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from scalellm_trt import facts
from scalellm_trt.plan.types import QuantizationPlan, ResolvedKvCacheDtype

if TYPE_CHECKING:
    from scalellm_trt.facts import Hardware, KvCacheSupport, Toolchain, WeightSupport
    from scalellm_trt.model_spec import ModelSpec
    from scalellm_trt.plan.notes import Notes
    from scalellm_trt.recipe import Calibration, Recipe

MAX_AWQ_SAMPLES = 32  # TensorRT-LLM examples/quantization/quantize.py caps AWQ's calibration here; more changes nothing
MIN_GROUP_SIZE = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """The rows that a recipe names, once all of them exist and go together."""

    hardware: Hardware
    toolchain: Toolchain
    weights: WeightSupport
    kv: KvCacheSupport


def resolve_rows(recipe: Recipe, notes: Notes) -> Rows | None:
    """Look the recipe's names up; None, with the reasons in `notes`, where one is not usable."""
    hardware = _hardware(recipe, notes)
    toolchain = _toolchain(recipe, notes)
    weights = _weights(recipe, notes)
    kv = _kv_cache(recipe, weights, notes)
    if hardware is None or toolchain is None or weights is None or kv is None:
        return None
    return Rows(hardware=hardware, toolchain=toolchain, weights=weights, kv=kv)


def resolve_quantization(recipe: Recipe, spec: ModelSpec, rows: Rows, notes: Notes) -> QuantizationPlan:
    """Settle group size and calibration for the weight format; what does not divide goes to `notes`."""
    return QuantizationPlan(
        weights=recipe.quantization.weights,
        group_size=_group_size(recipe, spec, rows.weights, notes),
        kv_cache_dtype=cast("ResolvedKvCacheDtype", rows.kv.kv_cache_dtype),
        calibration=_calibration(recipe, rows.weights, notes),
    )


def _hardware(recipe: Recipe, notes: Notes) -> Hardware | None:
    known = facts.hardware()
    row = known.get(recipe.hardware)
    if row is None:
        message = f"{recipe.hardware!r} is not a known class of hardware"
        notes.refuse_unknown("hardware", message, known, facts.nearest(recipe.hardware, known))
        return None
    if recipe.backend not in row.backends:
        message = f"{recipe.backend!r} does not run on {row.name} ({row.description})"
        notes.refuse_unknown("backend", message, row.backends, facts.nearest(recipe.backend, row.backends))
        return None
    return row


def _toolchain(recipe: Recipe, notes: Notes) -> Toolchain | None:
    known = facts.toolchains()
    of_backend = [row.name for row in known.values() if row.backend == recipe.backend]
    if recipe.toolchain is None:
        default = facts.default_toolchain(recipe.backend)
        if default is None:
            notes.refuse("backend", f"there is no toolchain for {recipe.backend!r} in this version")
            return None
        notes.decide("toolchain", default.name, f"the default of {recipe.backend}")
        return default
    row = known.get(recipe.toolchain)
    if row is None or row.backend != recipe.backend:
        what = "is not a known toolchain" if row is None else f"is a toolchain of {row.backend}, not {recipe.backend}"
        nearest = facts.nearest(recipe.toolchain, of_backend)
        notes.refuse_unknown("toolchain", f"{recipe.toolchain!r} {what}", of_backend, nearest)
        return None
    return row


def _weights(recipe: Recipe, notes: Notes) -> WeightSupport | None:
    wanted = recipe.quantization.weights
    of_backend = {row.weights: row for row in facts.weight_formats().values() if row.backend == recipe.backend}
    row = of_backend.get(wanted)
    if row is None or not row.is_supported:
        why = "no such row" if row is None else row.reason
        allowed = [name for name, other in of_backend.items() if other.is_supported]
        message = f"{wanted!r} is not supported by {recipe.backend}: {why}"
        notes.refuse_unknown("quantization.weights", message, allowed, facts.nearest(wanted, allowed))
        return None
    notes.decide("quantization.weights", wanted, row.reason)
    return row


def _kv_cache(recipe: Recipe, weights: WeightSupport | None, notes: Notes) -> KvCacheSupport | None:
    key, wanted = "quantization.kv_cache_dtype", recipe.quantization.kv_cache_dtype
    of_backend = [row for row in facts.kv_cache_formats().values() if row.backend == recipe.backend]
    row = next((row for row in of_backend if wanted in row.recipe_values), None)
    allowed = [value for other in of_backend if other.is_supported for value in other.recipe_values]
    if row is None or not row.is_supported:
        why = "no such row" if row is None else row.reason
        message = f"{wanted!r} is not supported by {recipe.backend}: {why}"
        notes.refuse_unknown(key, message, allowed, facts.nearest(wanted, allowed))
        return None
    if weights is not None and row.kv_cache_dtype not in weights.kv_cache_dtypes:
        message = f"{wanted!r} does not go with weights {weights.weights!r} on {recipe.backend}"
        notes.refuse_unknown(key, message, weights.kv_cache_dtypes, None)
        return None
    notes.decide(key, row.kv_cache_dtype, row.reason)
    return row


def _group_size(recipe: Recipe, spec: ModelSpec, weights: WeightSupport, notes: Notes) -> int | None:
    key, group_size = "quantization.group_size", recipe.quantization.group_size
    if weights.scales != "per_group":
        reason = "keeps its weights floating-point" if weights.scales == "none" else "has a scale per output channel"
        notes.decide(key, "none", f"{weights.weights} {reason}")
        return None
    inputs = {"hidden_size": spec.hidden_size, "num_heads * head_dim": spec.q_size}
    inputs["intermediate_size"] = spec.intermediate_size
    odd = [f"{name} {size}" for name, size in inputs.items() if size % group_size]
    if odd:
        allowed = [str(size) for size in _common_divisors(*inputs.values()) if size >= MIN_GROUP_SIZE]
        message = f"{group_size} does not divide the model's {', '.join(odd)}"
        notes.refuse_unknown(key, message, allowed, None)
        return None
    notes.decide(key, group_size, f"{group_size} weights share a scale; divides every input size of the model")
    return group_size


def _calibration(recipe: Recipe, weights: WeightSupport, notes: Notes) -> Calibration | None:
    if not weights.is_calibrated:
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

"""The rows of data that a recipe's names mean; a name without a row goes to the notes, with the nearest one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from scalellm_trt import facts

if TYPE_CHECKING:
    from scalellm_trt.facts import Hardware, KvCacheSupport, Toolchain, WeightSupport
    from scalellm_trt.plan.notes import Notes
    from scalellm_trt.recipe import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """The rows that a recipe names, once all of them exist."""

    hardware: Hardware
    toolchain: Toolchain
    weights: WeightSupport
    kv: KvCacheSupport


def resolve_rows(recipe: Recipe, notes: Notes) -> Rows | None:
    """Look the recipe's names up; None, with the reasons in `notes`, where one is not usable.

    A backend that the hardware does not run is the only thing said then: its other rows would mean nothing.
    """
    hardware = facts.hardware().get(recipe.hardware)
    if hardware is None:
        message = f"{recipe.hardware!r} is not a known class of hardware"
        known = facts.hardware()
        notes.refuse_unknown("hardware", message, known, facts.nearest(recipe.hardware, known))
    elif recipe.backend not in hardware.backends:
        message = f"{recipe.backend!r} does not run on {hardware.name} ({hardware.description})"
        nearest = facts.nearest(recipe.backend, hardware.backends)
        notes.refuse_unknown("backend", message, hardware.backends, nearest)
        return None
    toolchain = _toolchain(recipe, notes)
    weights = _weights(recipe, notes)
    kv = _kv_cache(recipe, weights, notes)
    if hardware is None or toolchain is None or weights is None or kv is None:
        return None
    return Rows(hardware=hardware, toolchain=toolchain, weights=weights, kv=kv)


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
    matching = [row for row in of_backend if wanted in row.recipe_values]
    of_dtype = [row for row in matching if row.kv_cache_dtype == recipe.model.dtype]
    row = next(iter(of_dtype or matching), None)
    allowed = list(dict.fromkeys(value for other in of_backend if other.is_supported for value in other.recipe_values))
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

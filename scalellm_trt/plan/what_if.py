"""A recipe on another card: what is bound to its own card is given up, what the new card refuses is replaced."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

from scalellm_trt import facts
from scalellm_trt.plan.changes import changed
from scalellm_trt.plan.types import Decision

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scalellm_trt.plan.changes import TryPlan
    from scalellm_trt.recipe import Recipe

# 16 bits before int8, which wants calibration and costs KV-cache reuse and chunked context.
KV_CACHE_DTYPES = ("fp8", "auto", "int8")
# In place of a format that a card lacks: the same bits first.
WEIGHTS_INSTEAD = ("fp8", "int8_wo", "int4_awq", "int4_wo", "full_prec")


def on_card(recipe: Recipe, hardware: str, try_plan: TryPlan) -> tuple[Recipe, tuple[Decision, ...]]:
    """Return the recipe for another class of hardware, with every change and why.

    The KV pool is left open, for it was sized for the recipe's own card. Toolchain, KV-cache type and weight format
    stay where the card takes them; else the fewest of them are changed, and a plan that fits is preferred. Only where
    none is allowed the model's type, KV-cache reuse and chunked context are given up as well. Where nothing is allowed
    the recipe comes back with its formats, for the plan to refuse with its reasons.
    """
    moved = recipe.model_copy(update={"hardware": hardware})
    changes = [Decision(field="hardware", value=hardware, reason=f"asked for; the recipe says {recipe.hardware}")]
    if moved.serving.kv_cache_tokens is not None:
        reason = f"sized for {recipe.hardware} ({moved.serving.kv_cache_tokens} tokens); this card's own is chosen"
        changes.append(Decision(field="serving.kv_cache_tokens", value="null", reason=reason))
        moved = changed(moved, "serving", "kv_cache_tokens", None)
    for start in _starts(moved):
        allowed: Recipe | None = None
        for candidate in _candidates(start):
            plan = try_plan(candidate)
            if plan is not None and plan.fits:
                return candidate, (*changes, *_differences(moved, candidate))
            allowed = allowed or (None if plan is None else candidate)
        if allowed is not None:
            return allowed, (*changes, *_differences(moved, allowed))
    return moved, tuple(changes)


def _starts(recipe: Recipe) -> Iterator[Recipe]:
    """Yield the recipe, and it without what older cards lack: bfloat16, and attention over paged contexts."""
    yield recipe
    if recipe.model.dtype != "float16":
        recipe = changed(recipe, "model", "dtype", "float16")
        yield recipe
    if recipe.serving.kv_cache_reuse or recipe.serving.chunked_context:
        longest = recipe.limits.max_input_len or recipe.limits.max_seq_len - 1
        serving = recipe.serving.model_copy(update={"kv_cache_reuse": False, "chunked_context": False})
        recipe = recipe.model_copy(update={"serving": serving})
        yield changed(recipe, "limits", "max_num_tokens", max(recipe.limits.max_num_tokens, longest))


def _candidates(recipe: Recipe) -> Iterator[Recipe]:
    """Yield the recipe itself, then those that differ in one, two and three of toolchain, KV-cache type and format."""
    quantization = recipe.quantization
    toolchains = [recipe.toolchain, *(n for n, r in facts.toolchains().items() if r.backend == recipe.backend)]
    kv_types = [quantization.kv_cache_dtype, *KV_CACHE_DTYPES]
    weights = [quantization.weights, *WEIGHTS_INSTEAD]
    combinations = list(product(*(dict.fromkeys(values) for values in (toolchains, kv_types, weights))))
    own = (recipe.toolchain, quantization.kv_cache_dtype, quantization.weights)
    combinations.sort(key=lambda values: sum(a != b for a, b in zip(values, own, strict=True)))
    for toolchain, kv_cache_dtype, weight_format in combinations:
        part = quantization.model_copy(update={"kv_cache_dtype": kv_cache_dtype, "weights": weight_format})
        yield recipe.model_copy(update={"toolchain": toolchain, "quantization": part})


def _differences(before: Recipe, after: Recipe) -> Iterator[Decision]:
    pairs = (
        ("model.dtype", before.model.dtype, after.model.dtype),
        ("toolchain", before.toolchain, after.toolchain),
        ("quantization.kv_cache_dtype", before.quantization.kv_cache_dtype, after.quantization.kv_cache_dtype),
        ("quantization.weights", before.quantization.weights, after.quantization.weights),
        ("serving.kv_cache_reuse", before.serving.kv_cache_reuse, after.serving.kv_cache_reuse),
        ("serving.chunked_context", before.serving.chunked_context, after.serving.chunked_context),
        ("limits.max_num_tokens", before.limits.max_num_tokens, after.limits.max_num_tokens),
    )
    for key, old, new in pairs:
        if old != new:
            reason = f"{'the default' if old is None else old} is refused or does not fit on {after.hardware}"
            yield Decision(field=key, value=str(new), reason=reason)

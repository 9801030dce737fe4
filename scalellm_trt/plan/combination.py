"""Whether a card and a toolchain take a recipe's formats together, and what these do without being asked."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final

from scalellm_trt import facts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scalellm_trt.facts import Combination, EffectName, Rule
    from scalellm_trt.plan.notes import Notes
    from scalellm_trt.plan.rows import Rows
    from scalellm_trt.recipe import Recipe

# The key of the recipe that an effect is about.
EFFECT_KEYS: Final[dict[EffectName, str]] = {
    "no_kv_cache_reuse": "serving.kv_cache_reuse",
    "no_chunked_context": "serving.chunked_context",
    "no_fp8_context_fmha": "quantization.kv_cache_dtype",
    "unfused_context_attention": "limits.max_input_len",
    "needs_calibration": "quantization.calibration",
    "unit_kv_scales": "quantization.kv_cache_dtype",
    "int8_kv_accuracy": "quantization.kv_cache_dtype",
    "fp8_kv_reuse_suspect": "serving.kv_cache_reuse",
    "no_prefill_speedup": "quantization.weights",
}


def check(rows: Rows, architecture: str, notes: Notes) -> Combination:
    """Look the combination up; every rule that refuses it goes to `notes`, at the key that it is about."""
    found = look_up(rows, architecture)
    refused: set[str] = set()
    for rule in found.rules:
        key = key_of(rule)
        if rule.is_allowed or key in refused:
            continue
        refused.add(key)
        wanted = _value(rows, key)
        allowed = list(dict.fromkeys(_allowed(rows, architecture, key)))
        message = f"{wanted!r} is not supported {_where(rule, rows)}: {because(rule)}"
        notes.refuse_unknown(key, message, allowed, facts.nearest(wanted, allowed))
    return found


def say_effects(recipe: Recipe, found: Combination, notes: Notes) -> None:
    """Say what the combination does without being asked; refuse a key of the recipe that asks for the contrary."""
    serving = recipe.serving
    asked = {"no_kv_cache_reuse": serving.kv_cache_reuse, "no_chunked_context": serving.chunked_context}
    for effect in found.effects:
        key = EFFECT_KEYS[effect.name]
        if asked.get(effect.name):
            hint = f"Set {key}: false, or formats that keep it; quantization.kv_cache_dtype: auto does from Ampere on."
            notes.refuse(key, f"true cannot be had here: {effect.text}", hint)
        else:
            notes.warn(key, _effect_value(recipe, effect.name), effect.text)
    for rule in found.rules:
        if rule.is_allowed and not rule.is_confirmed:
            notes.warn(key_of(rule), "unconfirmed", because(rule))


def look_up(rows: Rows, architecture: str) -> Combination:
    """Return what the rules say about the rows."""
    return facts.combination(
        rows.toolchain.backend,
        rows.toolchain.name,
        rows.weights.weights,
        rows.kv.kv_cache_dtype,
        rows.hardware.compute_capability,
        architecture=architecture,
    )


def key_of(rule: Rule) -> str:
    """Return the key of the recipe that a rule is about: the first to change when it refuses."""
    if rule.kv_cache_dtypes:
        return "quantization.kv_cache_dtype"
    return "quantization.weights" if rule.weights else "toolchain"


def because(rule: Rule) -> str:
    """Return a rule's reason, with the upstream issues that it does not name itself."""
    unnamed = [issue for issue in rule.issues if f"#{issue.split('#')[1]}" not in rule.reason]
    return f"{rule.reason} ({', '.join(unnamed)})" if unnamed else rule.reason


def _value(rows: Rows, key: str) -> str:
    if key == "toolchain":
        return rows.toolchain.name
    return rows.weights.weights if key == "quantization.weights" else rows.kv.recipe_values[0]


def _where(rule: Rule, rows: Rows) -> str:
    card = f"on compute capability {rows.hardware.compute_capability} ({rows.hardware.name})"
    if rule.architectures:
        return f"for {', '.join(rule.architectures)} by {rows.toolchain.name}"
    if rule.weights and rule.kv_cache_dtypes:
        return f"with weights {rows.weights.weights!r} {card} by {rows.toolchain.name}"
    return card if key_of(rule) == "toolchain" else f"{card} by {rows.toolchain.name}"


def _allowed(rows: Rows, architecture: str, key: str) -> Iterator[str]:
    """Yield the values of one key that no rule about it refuses, the other keys being as they are."""
    for tried in _alternatives(rows, key):
        rules = look_up(tried, architecture).rules
        if all(rule.is_allowed or key_of(rule) != key for rule in rules):
            yield _value(tried, key)


def _alternatives(rows: Rows, key: str) -> Iterator[Rows]:
    backend = rows.toolchain.backend
    if key == "toolchain":
        for toolchain in facts.toolchains().values():
            if toolchain.backend == backend:
                yield dataclasses.replace(rows, toolchain=toolchain)
    elif key == "quantization.weights":
        for weights in facts.weight_formats().values():
            if weights.backend == backend and weights.is_supported:
                yield dataclasses.replace(rows, weights=weights)
    else:
        for kv in facts.kv_cache_formats().values():
            if kv.backend == backend and kv.is_supported:
                yield dataclasses.replace(rows, kv=kv)


def _effect_value(recipe: Recipe, effect: EffectName) -> object:
    values: dict[EffectName, object] = {
        "no_kv_cache_reuse": "false",
        "no_chunked_context": "false",
        "unfused_context_attention": recipe.limits.max_input_len or recipe.limits.max_seq_len - 1,
        "needs_calibration": recipe.quantization.calibration.source,
        "fp8_kv_reuse_suspect": str(recipe.serving.kv_cache_reuse).lower(),
        "no_prefill_speedup": recipe.quantization.weights,
    }
    return values.get(effect, recipe.quantization.kv_cache_dtype)

"""Choose what stands for a recipe's formats and budgets on the maintained path, with the reason of each change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from packaging.version import Version

from scalellm_trt import facts, memory
from scalellm_trt.errors import Problem, UnsupportedError
from scalellm_trt.migrate import rows
from scalellm_trt.recipe.resolved import values
from scalellm_trt.recipe.schema import GROUPED_FORMATS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from scalellm_trt.facts import Toolchain
    from scalellm_trt.recipe import LoadedRecipe
    from scalellm_trt.recipe.tree import Scalar

BACKEND = "llmapi"
SUFFIX = "-llmapi"
_LONGEST_NAME = 63


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A recipe key that gets another value."""

    key: str
    before: Scalar
    after: Scalar
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Renaming:
    """A recipe key that stays, under the name that each generation knows it by."""

    key: str
    value: Scalar
    engine: str
    llmapi: str | None
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """What becomes of a recipe.

    Attributes:
        values: of the new recipe, by dotted key; those that have their default and were not written are left out.
        notes: what a user has to know besides.
    """

    changes: tuple[Change, ...]
    renamings: tuple[Renaming, ...]
    notes: tuple[str, ...]
    values: Mapping[str, Scalar]


def migrate(loaded: LoadedRecipe, toolchain_name: str | None = None) -> Migration:
    """Return what becomes of a recipe.

    Args:
        loaded: the recipe.
        toolchain_name: of the maintained path; None takes the newest whose image can serve.

    Raises:
        UnsupportedError: there is no way: it is no recipe of the engine generation, or the maintained path does not
            take its card, or there is no such toolchain.
    """
    toolchain = _toolchain(loaded, toolchain_name)
    weights = _weights(loaded, toolchain)
    kv_cache_dtype = _kv_cache_dtype(loaded, toolchain, weights)
    before = values(loaded)
    changes = [
        change
        for change in (
            Change(
                key="name", before=before["name"], after=_name(loaded), reason="both services may live side by side"
            ),
            Change(
                key="backend", before=before["backend"], after=BACKEND, reason="upstream removed engines in July 2026"
            ),
            Change(
                key="toolchain",
                before=before["toolchain"],
                after=toolchain.name,
                reason="nothing is compiled",
            ),
            *_format_changes(loaded, weights, kv_cache_dtype),
            *_pool_change(loaded, kv_cache_dtype, toolchain.tokens_per_block),
        )
        if change.before != change.after
    ]
    after = {key: value for key, value in before.items() if key in loaded.places or value is None}
    after = {key: value for key, value in after.items() if value is not None}
    after |= {change.key: change.after for change in changes if change.after is not None}
    return Migration(
        changes=tuple(changes),
        renamings=tuple(
            Renaming(key=key, value=before[key], engine=row.engine, llmapi=row.llmapi, note=row.note)
            for key, row in rows.options().items()
            if before[key] is not None
        ),
        notes=_notes(loaded, toolchain, weights),
        values=_with_effect(after, weights, kv_cache_dtype),
    )


def _toolchain(loaded: LoadedRecipe, name: str | None) -> Toolchain:
    backend = loaded.recipe.backend
    if backend != "tensorrt_llm":
        message = "is on the maintained path already" if backend == BACKEND else f"{backend} recipes have no engine"
        hint = "Only recipes with backend: tensorrt_llm are migrated."
        raise UnsupportedError([loaded.problem("backend", message, hint)])
    known = {row.name: row for row in facts.toolchains().values() if row.backend == BACKEND}
    if name is None:
        return newest_that_serves(known.values())
    if name not in known:
        message = f"{name!r} is no toolchain of {BACKEND}"
        raise UnsupportedError([Problem(key="--toolchain", message=message, hint=f"Known: {', '.join(known)}.")])
    return known[name]


def newest_that_serves(toolchains: Iterable[Toolchain]) -> Toolchain:
    """Return the newest toolchain whose image holds Triton: what is written for it can be run today."""
    found = [(Version(row.gpu.tensorrt_llm), row) for row in toolchains if row.gpu and row.gpu.image_has_triton]
    return max(found, key=lambda each: each[0])[1]


def _weights(loaded: LoadedRecipe, toolchain: Toolchain) -> str:
    before = loaded.recipe.quantization.weights
    candidates = rows.weights()[before].to
    found = next((name for name in candidates if _refusal(loaded, toolchain, name, "auto") is None), None)
    if found is not None:
        return found
    is_card = _refusal(loaded, toolchain, "full_prec", "auto") is not None
    reason = _refusal(loaded, toolchain, "full_prec" if is_card else candidates[0], "auto")
    key, value = ("hardware", loaded.recipe.hardware) if is_card else ("quantization.weights", before)
    hint = (
        f"Stay on toolchain {loaded.recipe.toolchain or 'of this recipe'} and its image, or change to a newer card."
        if is_card
        else f"Tried: {', '.join(candidates)}. Choose another format for this card first."
    )
    raise UnsupportedError([loaded.problem(key, f"{value!r} has no way to {toolchain.name}: {reason}", hint)])


def _kv_cache_dtype(loaded: LoadedRecipe, toolchain: Toolchain, weights: str) -> str:
    candidates = rows.kv_cache_dtypes()[loaded.recipe.quantization.kv_cache_dtype].to
    # 16 bits go with every format that `_weights` has let through.
    return next(name for name in candidates if _refusal(loaded, toolchain, weights, name) is None)


def _refusal(loaded: LoadedRecipe, toolchain: Toolchain, weights: str, kv_cache_dtype: str) -> str | None:
    """Return why a combination is not taken; None where it is."""
    hardware = facts.hardware().get(loaded.recipe.hardware)
    if hardware is None:
        return f"the card {loaded.recipe.hardware!r} is not known"
    dtype = "bfloat16" if loaded.recipe.model.dtype == "bfloat16" else "float16"
    resolved = dtype if kv_cache_dtype == "auto" else kv_cache_dtype
    format_row = facts.weight_formats()[f"{BACKEND}/{weights}"]
    cache_row = facts.kv_cache_formats()[f"{BACKEND}/{resolved}"]
    if not format_row.is_supported or not cache_row.is_supported:
        return format_row.reason if not format_row.is_supported else cache_row.reason
    verdict = facts.combination(BACKEND, toolchain.name, weights, resolved, hardware.compute_capability)
    if not verdict.is_allowed:
        return verdict.reason
    return None if BACKEND in hardware.backends else f"{BACKEND} does not run on {hardware.name}"


def _name(loaded: LoadedRecipe) -> str:
    return loaded.recipe.name[: _LONGEST_NAME - len(SUFFIX)] + SUFFIX


def _format_changes(loaded: LoadedRecipe, weights: str, kv_cache_dtype: str) -> list[Change]:
    quantization = loaded.recipe.quantization
    return [
        Change(
            key="quantization.weights",
            before=quantization.weights,
            after=weights,
            reason=rows.weights()[quantization.weights].reason,
        ),
        Change(
            key="quantization.kv_cache_dtype",
            before=quantization.kv_cache_dtype,
            after=kv_cache_dtype,
            reason=rows.kv_cache_dtypes()[quantization.kv_cache_dtype].reason,
        ),
    ]


def _pool_change(loaded: LoadedRecipe, kv_cache_dtype: str, tokens_per_block: int) -> list[Change]:
    """Halve a pool that goes from 8 to 16 bits, in whole blocks: the bytes stay the same, and it fits as before."""
    tokens = loaded.recipe.serving.kv_cache_tokens
    if tokens is None or loaded.recipe.quantization.kv_cache_dtype == "auto" or kv_cache_dtype != "auto":
        return []
    whole = tokens // 2 // tokens_per_block * tokens_per_block
    # One sequence in whole blocks and a spare one: with less the recipe would be refused.
    least = memory.num_blocks(loaded.recipe.limits.max_seq_len, tokens_per_block) + 1
    halved = max(whole, least * tokens_per_block)
    return [
        Change(
            key="serving.kv_cache_tokens",
            before=tokens,
            after=halved,
            reason="the same bytes at 16 bits for each value",
        )
    ]


def _notes(loaded: LoadedRecipe, toolchain: Toolchain, weights: str) -> tuple[str, ...]:
    recipe = loaded.recipe
    notes = []
    if facts.weight_formats()[f"{BACKEND}/{weights}"].is_calibrated and recipe.quantization.weights != weights:
        notes.append(
            "The checkpoint is made again: calibration takes minutes to hours, and wants the model in 16 bits."
        )
    if not recipe.serving.chunked_context:
        notes.append("serving.chunked_context may be true now: long prompts then come in by chunks.")
    if not recipe.serving.kv_cache_reuse:
        notes.append("serving.kv_cache_reuse may be true now, where the recipe left it off for the engine's sake.")
    if toolchain.gpu is not None:
        notes.append(f"{toolchain.name}: {toolchain.gpu.image_note}.")
    return tuple(notes)


def _with_effect(after: Mapping[str, Scalar], weights: str, kv_cache_dtype: str) -> dict[str, Scalar]:
    """Leave out what has no effect with the new formats; a recipe with such keys is refused."""
    is_calibrated = facts.weight_formats()[f"{BACKEND}/{weights}"].is_calibrated or kv_cache_dtype != "auto"
    unused = () if weights in GROUPED_FORMATS else ("quantization.group_size",)
    sections = () if is_calibrated else ("quantization.calibration.",)
    return {key: value for key, value in after.items() if key not in unused and not key.startswith(sections)}

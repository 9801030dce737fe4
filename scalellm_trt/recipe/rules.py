"""Rules between keys that need no knowledge of hardware, toolchain or model.

A rule's docstring is its documentation: the reference prints it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from scalellm_trt.recipe.schema import GROUPED_FORMATS, UNCALIBRATED_FORMATS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from scalellm_trt.recipe.schema import Recipe
    from scalellm_trt.recipe.tree import KeyPath


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """A rule that a recipe breaks; the message begins with what was found."""

    path: KeyPath
    message: str
    hint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """`check` yields the violations; it is asked only when every key in `reads` holds a good value."""

    reads: tuple[KeyPath, ...]
    check: Callable[[Recipe, Collection[KeyPath]], Iterator[Violation]]


def violations(recipe: Recipe, written: Collection[KeyPath], bad: Collection[KeyPath]) -> Iterator[Violation]:
    """Yield what `recipe` breaks.

    Args:
        recipe: with any value in the place of the bad ones.
        written: the keys that stand in a file; the others have their default.
        bad: the keys that the schema has refused; rules that read them are left out.
    """
    for rule in RULES:
        if not any(path[: len(refused)] == refused for path in rule.reads for refused in bad):
            yield from rule.check(recipe, written)


def unused_keys(recipe: Recipe) -> dict[KeyPath, str]:
    """Return the keys whose value changes nothing in this recipe, each with the reason."""
    quantization = recipe.quantization
    unused: dict[KeyPath, str] = {}
    if quantization.weights not in GROUPED_FORMATS:
        unused["quantization", "group_size"] = f"{quantization.weights} has no group size to choose"
    # An INT8 KV cache wants scales, whatever the weights are; OpenVINO finds them while it runs. FP8 takes 1.0.
    has_kv_scales = quantization.kv_cache_dtype == "int8" and recipe.backend != "openvino"
    if quantization.weights in UNCALIBRATED_FORMATS and not has_kv_scales:
        unused["quantization", "calibration"] = f"{quantization.weights} needs no calibration"
    return unused


def _no_key_without_effect(recipe: Recipe, written: Collection[KeyPath]) -> Iterator[Violation]:
    """`group_size` is written only for the AWQ formats, `calibration` only for formats that calibrate."""
    for path, reason in unused_keys(recipe).items():
        if path in written:
            hint = "Remove it, or choose a format that uses it: " + (
                ", ".join(sorted(GROUPED_FORMATS)) + "."
                if path[-1] == "group_size"
                else "int4_awq, w4a8_awq, int8_sq, fp8 or nvfp4."
            )
            yield Violation(path=path, message=f"has no effect: {reason}", hint=hint)


def _prompt_leaves_room(recipe: Recipe, written: Collection[KeyPath]) -> Iterator[Violation]:
    """`limits.max_input_len` is below `limits.max_seq_len`, which is at least 2: one prompt token, one answer token."""
    limits = recipe.limits
    if limits.max_seq_len < 2:
        message = f"{limits.max_seq_len} leaves no room for a prompt and an answer"
        yield Violation(path=("limits", "max_seq_len"), message=message, hint="Write 2 or more.")
    elif limits.max_input_len is not None and limits.max_input_len >= limits.max_seq_len:
        message = f"{limits.max_input_len} leaves no room for an answer within max_seq_len {limits.max_seq_len}"
        hint = f"Write at most {limits.max_seq_len - 1}, or raise max_seq_len: it counts prompt plus answer."
        yield Violation(path=("limits", "max_input_len"), message=message, hint=hint)


def _step_holds_prompt(recipe: Recipe, written: Collection[KeyPath]) -> Iterator[Violation]:
    """Without `serving.chunked_context` a prompt comes in within one step: `max_num_tokens` covers the longest one."""
    limits = recipe.limits
    longest = limits.max_input_len or limits.max_seq_len - 1
    if not recipe.serving.chunked_context and limits.max_num_tokens < longest:
        yield Violation(
            path=("limits", "max_num_tokens"),
            message=f"{limits.max_num_tokens} is less than the longest prompt, {longest} tokens, "
            "and serving.chunked_context is false",
            hint=f"Set serving.chunked_context: true, raise max_num_tokens to {longest}, or lower max_input_len.",
        )


def _step_holds_batch(recipe: Recipe, written: Collection[KeyPath]) -> Iterator[Violation]:
    """`max_num_tokens` is at least `max_batch_size`: every generating sequence takes one token of each step."""
    limits = recipe.limits
    if limits.max_num_tokens < limits.max_batch_size:
        yield Violation(
            path=("limits", "max_num_tokens"),
            message=f"{limits.max_num_tokens} is less than max_batch_size {limits.max_batch_size}",
            hint=f"Each generating sequence takes a token of every step: write {limits.max_batch_size} or more.",
        )


def _pool_holds_sequence(recipe: Recipe, written: Collection[KeyPath]) -> Iterator[Violation]:
    """`serving.kv_cache_tokens` holds at least one sequence of `max_seq_len`."""
    tokens = recipe.serving.kv_cache_tokens
    if tokens is not None and tokens < recipe.limits.max_seq_len:
        yield Violation(
            path=("serving", "kv_cache_tokens"),
            message=f"{tokens} holds no whole sequence of max_seq_len {recipe.limits.max_seq_len}",
            hint="A request of that length could never finish: raise kv_cache_tokens or lower max_seq_len.",
        )


def _file_is_pinned(recipe: Recipe, written: Collection[KeyPath]) -> Iterator[Violation]:
    """`model.sha256` is required for `pypi:`, optional for `gguf:`, refused for `hf:` and directories (many files)."""
    source, sha256 = recipe.model.source, recipe.model.sha256
    if source.startswith("pypi:") and sha256 is None:
        hint = f"Download the file from a place you trust and write what `sha256sum` prints for it ({source})."
        yield Violation(path=("model", "sha256"), message="is missing: a pypi: source is pinned by content", hint=hint)
    elif sha256 is not None and not source.startswith(("pypi:", "gguf:")):
        hint = "Remove it." + (" A commit pins a repository: hf:ORG/NAME@COMMIT." if source.startswith("hf:") else "")
        yield Violation(path=("model", "sha256"), message=f"is the digest of one file, {source!r} is many", hint=hint)


def _name_is_free(recipe: Recipe, written: Collection[KeyPath]) -> Iterator[Violation]:
    """`name` does not end in `_engine`: in the repository NAME_engine is the engine model behind the service NAME."""
    if recipe.name.endswith("_engine"):
        owner = recipe.name.removesuffix("_engine")
        message = f"{recipe.name!r} is what the repository calls the engine model of a service {owner!r}"
        yield Violation(path=("name",), message=message, hint="Choose a name that does not end in _engine.")


_INPUT, _SEQ, _STEP = ("limits", "max_input_len"), ("limits", "max_seq_len"), ("limits", "max_num_tokens")
_FORMATS = (("backend",), ("quantization", "weights"), ("quantization", "kv_cache_dtype"))

RULES = (
    Rule(reads=(("name",),), check=_name_is_free),
    Rule(reads=(("model", "source"), ("model", "sha256")), check=_file_is_pinned),
    Rule(reads=_FORMATS, check=_no_key_without_effect),
    Rule(reads=(_INPUT, _SEQ), check=_prompt_leaves_room),
    Rule(reads=(_INPUT, _SEQ, _STEP, ("serving", "chunked_context")), check=_step_holds_prompt),
    Rule(reads=(_STEP, ("limits", "max_batch_size")), check=_step_holds_batch),
    Rule(reads=(_SEQ, ("serving", "kv_cache_tokens")), check=_pool_holds_sequence),
)
"""In the order of the schema; the reference prints their docstrings."""

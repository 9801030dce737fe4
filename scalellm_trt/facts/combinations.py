"""`data/quantization.yaml`, its rules: what a weight format and a KV-cache type do together on a card.

A rule says something about every combination that it matches; what no rule refuses is allowed.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast, get_args

from packaging.specifiers import SpecifierSet

from scalellm_trt.facts import rows
from scalellm_trt.facts.toolchains import toolchains

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scalellm_trt.facts.rows import Origin, Row

EffectName = Literal[
    "no_kv_cache_reuse",
    "no_chunked_context",
    "no_fp8_context_fmha",
    "unfused_context_attention",
    "needs_calibration",
    "unit_kv_scales",
    "int8_kv_accuracy",
    "fp8_kv_reuse_suspect",
    "no_prefill_speedup",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """Something that a combination does without being asked; `text` says it to a user."""

    name: EffectName
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What holds for every combination that matches; an empty tuple or None matches everything.

    Attributes:
        versions: PEP 440 range of the toolchain's TensorRT-LLM.
        compute_capability: PEP 440 range.
        architectures: of models.
        issues: where upstream talks about it, such as "NVIDIA/TensorRT-LLM#2699".
        is_confirmed: false where no source shows that it works, or that it fails.
    """

    name: str
    backends: tuple[str, ...]
    versions: str | None
    weights: tuple[str, ...]
    kv_cache_dtypes: tuple[str, ...]
    compute_capability: str | None
    architectures: tuple[str, ...]
    is_allowed: bool
    reason: str
    effects: tuple[Effect, ...]
    issues: tuple[str, ...]
    is_confirmed: bool
    origin: Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class Combination:
    """The verdict over one combination.

    Attributes:
        reason: of the first rule that refuses, else of the first that says anything; empty where none does.
        rules: every rule that matched, refusing ones first.
        is_confirmed: false where a matching rule is not.
        origin: of the rule that gave the reason; None where none matched.
    """

    is_allowed: bool
    reason: str
    effects: tuple[Effect, ...]
    is_confirmed: bool
    issues: tuple[str, ...]
    rules: tuple[Rule, ...]
    origin: Origin | None

    def has(self, name: EffectName) -> bool:
        """Tell whether it has an effect."""
        return any(effect.name == name for effect in self.effects)


@functools.cache
def combination_rules() -> Mapping[str, Rule]:
    """Return the rules by name, in the order of the file."""
    return rows.load("quantization.yaml", parse_rule, section="combinations")


def combination(
    backend: str,
    toolchain: str,
    weights: str,
    kv_cache_dtype: str,
    compute_capability: str | None,
    *,
    architecture: str | None = None,
) -> Combination:
    """Return what the rules say about a weight format with a resolved KV-cache type on a card.

    `toolchain` is the name of a row; `compute_capability` is such as "8.9", None on a CPU. Rules
    about certain models are asked only with an `architecture`.
    """
    gpu = toolchains()[toolchain].gpu
    version = None if gpu is None else gpu.tensorrt_llm
    found = [
        rule
        for rule in combination_rules().values()
        if _names(rule.backends, backend)
        and _names(rule.weights, weights)
        and _names(rule.kv_cache_dtypes, kv_cache_dtype)
        and (not rule.architectures or architecture in rule.architectures)
        and _in_range(rule.versions, version)
        and _in_range(rule.compute_capability, compute_capability)
    ]
    found.sort(key=lambda rule: rule.is_allowed)
    effects = {effect.name: effect for rule in reversed(found) for effect in reversed(rule.effects)}
    return Combination(
        is_allowed=all(rule.is_allowed for rule in found),
        reason=found[0].reason if found else "",
        effects=tuple(reversed(effects.values())),
        is_confirmed=all(rule.is_confirmed for rule in found),
        issues=tuple(dict.fromkeys(issue for rule in found for issue in rule.issues)),
        rules=tuple(found),
        origin=found[0].origin if found else None,
    )


def parse_rule(name: str, row: Row) -> Rule:
    """Turn one row of quantization.yaml's `combinations` into its type; what it does not name it does not restrict."""
    effects = rows.text_table(row, "effects") if "effects" in row else {}
    if odd := [effect for effect in effects if effect not in get_args(EffectName)]:
        message = f"effects.{odd[0]} must be one of {', '.join(get_args(EffectName))}"
        raise TypeError(message)
    return Rule(
        name=name,
        backends=rows.texts(row, "backends"),
        versions=rows.text(row, "versions") if "versions" in row else None,
        weights=rows.texts(row, "weights") if "weights" in row else (),
        kv_cache_dtypes=rows.texts(row, "kv_cache_dtypes") if "kv_cache_dtypes" in row else (),
        compute_capability=rows.text(row, "compute_capability") if "compute_capability" in row else None,
        architectures=rows.texts(row, "architectures") if "architectures" in row else (),
        is_allowed=rows.flag(row, "allowed"),
        reason=rows.text(row, "reason"),
        effects=tuple(Effect(name=cast("EffectName", key), text=value) for key, value in effects.items()),
        issues=rows.texts(row, "issues") if "issues" in row else (),
        is_confirmed=rows.flag(row, "confirmed"),
        origin=rows.origin(row),
    )


def _names(allowed: tuple[str, ...], name: str) -> bool:
    return not allowed or name in allowed


def _in_range(wanted: str | None, version: str | None) -> bool:
    if wanted is None:
        return True
    return version is not None and SpecifierSet(wanted).contains(version, prereleases=True)

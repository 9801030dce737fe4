"""`data/migrations.yaml`: what stands for each format of the engine generation, and what its options are called."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scalellm_trt.facts import rows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scalellm_trt.facts import Origin
    from scalellm_trt.facts.rows import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Successor:
    """What stands for a format; `to` is what to try, nearest first."""

    to: tuple[str, ...]
    reason: str
    origin: Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionName:
    """What a recipe key is called; `llmapi` is None where LLM(...) has no such argument."""

    key: str
    engine: str
    llmapi: str | None
    note: str
    origin: Origin


@functools.cache
def weights() -> Mapping[str, Successor]:
    """Return the successors of the weight formats."""
    return rows.load("migrations.yaml", _successor, section="weights")


@functools.cache
def kv_cache_dtypes() -> Mapping[str, Successor]:
    """Return the successors of the KV-cache types, by what a recipe writes."""
    return rows.load("migrations.yaml", _successor, section="kv_cache_dtypes")


@functools.cache
def options() -> Mapping[str, OptionName]:
    """Return the names of the options by recipe key."""
    return rows.load("migrations.yaml", _option, section="options")


def _successor(name: str, row: Row) -> Successor:
    to = rows.texts(row, "to")
    if not to:
        message = f"to must name a format for {name}"
        raise TypeError(message)
    return Successor(to=to, reason=rows.text(row, "reason"), origin=rows.origin(row))


def _option(name: str, row: Row) -> OptionName:
    return OptionName(
        key=name,
        engine=rows.text(row, "engine"),
        llmapi=rows.text_or_none(row, "llmapi"),
        note=rows.text(row, "note"),
        origin=rows.origin(row),
    )

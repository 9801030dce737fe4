"""`data/models.yaml`: models whose shape is known before anything is downloaded."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from scalellm_trt.facts import rows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scalellm_trt.facts.rows import Origin, Row


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRow:
    """A model whose shape is known before a download.

    Attributes:
        sources: the values of a recipe's `model.source` that mean it.
        is_gated: whether its files want an account that accepted the licence.
        config: the Hugging Face config.json, for `model_spec.from_hf_config`.
    """

    name: str
    sources: tuple[str, ...]
    license: str
    is_gated: bool
    config: Mapping[str, object]
    origin: Origin


@functools.cache
def models() -> Mapping[str, ModelRow]:
    """Return the known models by name."""
    return rows.load("models.yaml", parse_model)


def model_from(source: str) -> ModelRow | None:
    """Return the known model that a recipe's `model.source` means; a revision after `@` is not looked at."""
    wanted = source.split("@", 1)[0] if source.startswith("hf:") else source
    return next((row for row in models().values() if wanted in row.sources), None)


def parse_model(name: str, row: Row) -> ModelRow:
    """Turn one row of models.yaml into its type."""
    return ModelRow(
        name=name,
        sources=rows.texts(row, "sources"),
        license=rows.text(row, "license"),
        is_gated=rows.flag(row, "gated"),
        config=MappingProxyType(rows.table(row, "config")),
        origin=rows.origin(row),
    )

"""A migration in, the text of the new recipe out: flat, with a header that says where it comes from."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from scalellm_trt.recipe.keys import known_keys
from scalellm_trt.recipe.resolved import yaml_text
from scalellm_trt.recipe.tree import dotted, shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from scalellm_trt.migrate.decide import Migration
    from scalellm_trt.recipe.tree import Scalar

_WIDTH = 118


def recipe_text(migration: Migration, source: Path) -> str:
    """Return the new recipe; each value that differs from `source` says what it was."""
    lines = [*_header(migration, source), ""]
    before = {change.key: change.before for change in migration.changes}
    rows = list(_rows(migration, before))
    width = max(len(text) for text, _ in rows)
    for text, comment in rows:
        if not text.startswith(" ") and text.endswith(":"):
            lines.append("")
        lines.append(f"{text:{width}}  # {comment}" if comment else text)
    return "\n".join(lines) + "\n"


def _header(migration: Migration, source: Path) -> Iterator[str]:
    yield f"# Made from {source} by `scalellm-trt migrate`: the same service on the maintained path, without an engine."
    yield "# The comments of that recipe stay there. verified: false, until somebody runs it."
    for change in migration.changes:
        if change.key.startswith(("quantization.", "serving.")):
            text = f"{change.key}: {shown(change.before)} became {shown(change.after)}: {change.reason}."
            yield from _comment(text)
    for note in migration.notes:
        yield from _comment(note)


def _comment(text: str) -> list[str]:
    return ["#", *(f"# {line}" for line in textwrap.wrap(text, _WIDTH - 2))]


def _rows(migration: Migration, before: Mapping[str, Scalar]) -> Iterator[tuple[str, str]]:
    wanted = set(migration.values) | {"schema"}
    for path, key in known_keys().items():
        name = dotted(path)
        indent = "  " * (len(path) - 1)
        if key.is_section:
            if any(other.startswith(f"{name}.") for other in wanted):
                yield f"{indent}{path[-1]}:", ""
        elif name in wanted:
            value = migration.values.get(name, key.default)
            was = before.get(name)
            comment = f"was {was}" if name in before and was is not None else ""
            yield f"{indent}{path[-1]}: {yaml_text(value)}", comment

"""A loaded recipe in, the same recipe with every value written out and its origin beside it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, cast

from scalellm_trt.recipe.keys import known_keys
from scalellm_trt.recipe.rules import unused_keys
from scalellm_trt.recipe.tree import dotted, shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scalellm_trt.recipe.keys import Key
    from scalellm_trt.recipe.loader import LoadedRecipe
    from scalellm_trt.recipe.tree import KeyPath, Scalar

# Words that every YAML reader takes as text; everything else is quoted.
_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9_./@+=-]*(:[A-Za-z0-9_./@+=-]+)*", re.ASCII)
_NO_TEXT = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})


def values(loaded: LoadedRecipe) -> dict[str, Scalar]:
    """Return every value of the recipe by its dotted key, in the schema's order."""
    dumped = loaded.recipe.model_dump(by_alias=True)
    return {dotted(path): _value(dumped, path) for path, key in known_keys().items() if not key.is_section}


def resolved_yaml(loaded: LoadedRecipe) -> str:
    """Return a recipe that loads to the same values without `extends` and defaults.

    Each value has a comment: `file:line`, or `default:` and what it means. Keys without effect are comments.
    """
    written = values(loaded)
    unused = {dotted(path): reason for path, reason in unused_keys(loaded.recipe).items()}
    rows = [row for path, key in known_keys().items() for row in _rows(path, key, written, unused, loaded)]
    width = max(len(text) for text, comment in rows if comment and len(text) <= 48)
    lines = (f"{text:{width}}  # {comment}" if comment else text for text, comment in rows)
    return "\n".join(lines) + "\n"


def yaml_text(value: Scalar) -> str:
    """Write a value so that every YAML reader reads it back."""
    if isinstance(value, str):
        is_plain = _PLAIN.fullmatch(value) and value.lower() not in _NO_TEXT
        return value if is_plain else "'" + value.replace("'", "''") + "'"
    return "null" if value is None else shown(value)


def _rows(
    path: KeyPath, key: Key, written: dict[str, Scalar], unused: dict[str, str], loaded: LoadedRecipe
) -> Iterator[tuple[str, str]]:
    name = dotted(path)
    indent = "  " * (len(path) - 1)
    if name in unused:
        yield f"{indent}# {path[-1]}: {unused[name]}", ""
    elif any(name.startswith(f"{section}.") for section in unused):
        return
    elif key.is_section:
        yield f"{indent}{path[-1]}:", ""
    else:
        origin = loaded.origin(name)
        comment = f"default: {key.description}" if origin.place is None else str(origin)
        yield f"{indent}{path[-1]}: {yaml_text(written[name])}", comment


def _value(dumped: dict[str, object], path: KeyPath) -> Scalar:
    value: object = dumped
    for name in path:
        value = cast("dict[str, object]", value)[name]
    return cast("Scalar", value)

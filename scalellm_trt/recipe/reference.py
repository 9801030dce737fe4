"""`docs/reference/recipe.md`, made from the schema and the rules."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

from scalellm_trt.recipe.file_text import MAX_BYTES
from scalellm_trt.recipe.keys import default_text, known_keys
from scalellm_trt.recipe.rules import RULES
from scalellm_trt.recipe.schema import RESERVED_KEYS, Recipe
from scalellm_trt.recipe.tree import dotted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import BaseModel

    from scalellm_trt.recipe.keys import Key
    from scalellm_trt.recipe.tree import KeyPath

_INTRODUCTION = """\
# Recipe reference

Generated from the schema by `scripts/generate_docs.py`; do not edit.

A recipe is one YAML file: one service on one class of hardware. `scalellm-trt show RECIPE` prints every value with the
line it comes from, `scalellm-trt validate RECIPE` every problem. The first line of a recipe names
`scalellm_trt/data/recipe.schema.json`, from which editors complete and check.
"""

_EXTENDS = """\
## extends

`extends: base/NAME.yaml` takes another file, relative to this one, as the ground on which this recipe stands. Mappings
merge key by key; any other value replaces the one below it, also when it is `null`. `name` is not inherited: two
recipes must not build into one folder. Files may be chained; a circle is refused. A relative path in `model.source` or
`quantization.calibration.source` counts from the file in which it is written.
"""

_RULES = (
    "## Rules between keys\n\nBeyond the type of each value; the card, the toolchain and the model add theirs later.\n"
)

_YAML = f"""\
## What the YAML may hold

Mappings, numbers, true, false, null and text in one line, in UTF-8, at most {MAX_BYTES // 1024} KiB. Refused, because
a recipe needs none of them and each has surprised somebody: tabs as indentation, duplicate and unknown keys, anchors,
aliases, tags, several documents in a file, and unquoted words that are not the same to every YAML reader, such as
`yes`, `010`, `1e3`, `1_000`, `12:30` and `2024-01-31`.
"""


def recipe_reference() -> str:
    """Return the reference as Markdown."""
    rules = "\n".join(f"- {inspect.cleandoc(rule.check.__doc__ or '')}" for rule in RULES)
    reserved = ", ".join(f"`{name}`" for name in RESERVED_KEYS)
    kept = f"## Reserved names\n\n{reserved} at the top level are refused until a later version defines them.\n"
    return "\n".join([_INTRODUCTION, *key_tables(Recipe), _EXTENDS, f"{_RULES}\n{rules}\n", _YAML, kept])


def key_tables(model: type[BaseModel]) -> list[str]:
    """Return a Markdown table of the keys at the top of a file that `model` describes, then one for each section."""
    keys = known_keys(model)
    sections = [path for path, key in keys.items() if key.is_section]
    return [_table((), "## Top level", keys), *(_table(path, f"## {dotted(path)}", keys) for path in sections)]


def _table(section: KeyPath, title: str, keys: Mapping[KeyPath, Key]) -> str:
    rows = "\n".join(_row(key) for path, key in keys.items() if path[:-1] == section)
    about = "" if not section else f"{keys[section].description}\n\n"
    return f"{title}\n\n{about}| key | takes | default | what it is |\n|---|---|---|---|\n{rows}\n"


def _row(key: Key) -> str:
    if key.is_section:
        default = "**required**" if key.is_required else "see below"
        return f"| [`{key.path[-1]}`](#{''.join(key.path).lower()}) | a mapping | {default} | {key.description} |"
    default = "**required**" if key.is_required else f"`{default_text(key)}`"
    return " | ".join((f"| `{key.path[-1]}`", _cell(key.allowed), default, f"{_cell(key.description)} |"))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")

"""The schema as a table of keys: what messages, `show`, the reference and editors say about each one."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

from scalellm_trt.recipe.schema import Recipe
from scalellm_trt.recipe.tree import shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydantic import BaseModel

    from scalellm_trt.recipe.tree import KeyPath, Scalar

    JsonObject = dict[str, object]

ANY_NAME: Final = "NAME"
"""Stands in a path for a name that the file's author chooses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One key of a recipe, or of another file that a pydantic model describes.

    Attributes:
        path: the names from the top to it.
        is_section: it holds keys; then `allowed` is "a mapping".
        allowed: what it takes, as a phrase: "a whole number from 1 to 2147483647", "one of auto, int8, fp8".
        choices: the values of a closed set, else empty.
        kind: the type in JSON's words: string, integer, number, boolean, array or object.
        is_required: it has no default.
        default: None as well where there is none.
        description: from the schema.
    """

    path: KeyPath
    is_section: bool
    allowed: str
    choices: tuple[str, ...]
    kind: str
    is_required: bool
    default: Scalar
    description: str


@functools.cache
def known_keys(model: type[BaseModel] = Recipe) -> Mapping[KeyPath, Key]:
    """Return every key of a file that `model` describes by its path, sections before their keys, in its order."""
    schema = cast("JsonObject", model.model_json_schema(by_alias=True))
    return {key.path: key for key in _keys_of(schema, cast("JsonObject", schema["$defs"]), ())}


def schema_path(path: KeyPath, model: type[BaseModel] = Recipe) -> KeyPath:
    """Return the path by which `known_keys` has what stands at `path`: chosen names and numbers in lists replaced."""
    keys = known_keys(model)
    found: KeyPath = ()
    for name in path:
        key = keys.get(found)
        if key is not None and key.kind == "array" and name.isdecimal():
            return found
        chosen = (*found, ANY_NAME)
        found = chosen if (*found, name) not in keys and chosen in keys else (*found, name)
    return found


def names_below(path: KeyPath, model: type[BaseModel] = Recipe) -> list[str]:
    """Return the names of the keys of the section at `path`."""
    return [key[-1] for key in known_keys(model) if key[:-1] == path]


def _keys_of(section: JsonObject, definitions: JsonObject, above: KeyPath) -> Iterator[Key]:
    required = cast("list[str]", section.get("required", []))
    for name, field in cast("dict[str, JsonObject]", section["properties"]).items():
        path = (*above, name)
        # A section that may be null is the first of two choices.
        section_or_null = cast("list[JsonObject]", field.get("anyOf", [field]))[0]
        if "$ref" in section_or_null:
            below = cast("JsonObject", definitions[str(section_or_null["$ref"]).removeprefix("#/$defs/")])
            yield _key(path, below, is_required=name in required)
            yield from _keys_of(below, definitions, path)
        elif "patternProperties" in field:
            yield _key(path, field, is_required=name in required)
            (item,) = cast("dict[str, JsonObject]", field["patternProperties"]).values()
            below = cast("JsonObject", definitions[str(item["$ref"]).removeprefix("#/$defs/")])
            yield _key((*path, ANY_NAME), below, is_required=False)
            yield from _keys_of(below, definitions, (*path, ANY_NAME))
        else:
            yield _key(path, field, is_required=name in required)


def _key(path: KeyPath, field: JsonObject, *, is_required: bool) -> Key:
    main = cast("list[JsonObject]", field.get("anyOf", [field]))[0]
    kind = str(main["type"])
    return Key(
        path=path,
        is_section=kind == "object",
        allowed=_allowed(main, field, kind) + (", or null" if "anyOf" in field else ""),
        choices=tuple(cast("list[str]", main.get("enum", []))),
        kind=kind,
        is_required=is_required,
        default=cast("Scalar", field.get("default")),
        description=str(field["description"]),
    )


def _allowed(field: JsonObject, whole: JsonObject, kind: str) -> str:
    if "enum" in field:
        return "one of " + ", ".join(cast("list[str]", field["enum"]))
    if "patternProperties" in field:
        return f"a mapping; its names are {field['patternErrorMessage']}"
    if kind == "integer":
        low, high = field["minimum"], field["maximum"]
        return f"{low}" if low == high else f"a whole number from {low} to {high}"
    if kind == "number":
        return (
            f"a number from {field['minimum']}" if "minimum" in field else f"a number above {field['exclusiveMinimum']}"
        )
    if kind in ("string", "array"):
        return str({**whole, **field}["patternErrorMessage"])
    return {"boolean": "true or false", "object": "a mapping"}[kind]


def default_text(key: Key) -> str:
    """Write a key's default as a recipe would."""
    return "null" if key.default is None else shown(key.default).strip("'")

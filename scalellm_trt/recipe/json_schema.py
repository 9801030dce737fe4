"""The recipe's JSON schema for editors, made from the pydantic models; `data/recipe.schema.json` is its stored form."""

from __future__ import annotations

import json
from typing import cast

from scalellm_trt.recipe.schema import RESERVED_KEYS, Recipe

JsonObject = dict[str, object]

_EXTENDS = {
    "description": "another recipe file, relative to this one, whose values hold where this one says nothing: "
    "mappings merge key by key, everything else is replaced; name is not inherited",
    "minLength": 1,
    "type": "string",
}


def json_schema() -> JsonObject:
    """Return the schema of one recipe file, in the draft that YAML editors implement.

    With `extends` only `name` is required, because the rest may come from the other file.
    """
    schema = without_titles(cast("JsonObject", Recipe.model_json_schema(by_alias=True)))
    definitions = cast("dict[str, JsonObject]", schema["$defs"])
    complete = {
        "required": schema["required"],
        "properties": {"model": {"required": definitions["Model"].pop("required")}},
    }
    properties = cast("JsonObject", schema["properties"])
    ordered = {"schema": properties.pop("schema"), "name": properties.pop("name"), "extends": _EXTENDS, **properties}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "scalellm-trt recipe",
        **schema,
        "$comment": f"Reserved for later versions: {', '.join(RESERVED_KEYS)}.",
        "properties": ordered,
        "required": ["name"],
        "if": {"not": {"required": ["extends"]}},
        "then": complete,
    }


def json_schema_text() -> str:
    """Return the content of `data/recipe.schema.json`."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def without_titles(node: JsonObject) -> JsonObject:
    """Drop the titles that pydantic makes up from names; a property that is called title would be a mapping."""
    return {
        key: without_titles(cast("JsonObject", value)) if isinstance(value, dict) else value
        for key, value in node.items()
        if not (key == "title" and isinstance(value, str))
    }

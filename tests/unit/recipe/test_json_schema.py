from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from scalellm_trt.recipe.json_schema import json_schema

GOOD = {"name": "a", "hardware": "cpu", "model": {"source": "hf:org/name"}}


def is_valid(recipe: object) -> bool:
    return bool(jsonschema.Draft7Validator(json_schema()).is_valid(recipe))


def test_the_schema_itself_is_a_schema() -> None:
    jsonschema.Draft7Validator.check_schema(json_schema())


def test_every_value_and_section_is_described() -> None:
    schema = json_schema()
    definitions = schema["$defs"]
    assert isinstance(definitions, dict)
    for section in [schema, *definitions.values()]:
        assert section["description"]
        assert section["additionalProperties"] is False
        for name, field in section["properties"].items():
            assert "$ref" in field or field["description"], name


@pytest.mark.parametrize(
    "change",
    [
        {"name": "A"},
        {"model": {}},
        {"model": {"source": "org/name"}},
        {"services": 0},
        {"services": True},
        {"schema": 2},
        {"lora": {}},
        {"limits": {"max_batch": 1}},
        {"quantization": {"weights": "int4"}},
        {"extends": ""},
    ],
)
def test_editors_mark_what_load_refuses(change: dict[str, object]) -> None:
    assert is_valid(GOOD)
    assert not is_valid({**GOOD, **change})


def test_only_a_recipe_that_extends_another_may_leave_out_the_required_keys() -> None:
    assert is_valid({"name": "a", "extends": "b.yaml", "model": {"dtype": "float16"}})
    assert not is_valid({"name": "a"})
    assert not is_valid({"name": "a", "hardware": "cpu", "model": {"dtype": "float16"}})
    assert not is_valid({"extends": "b.yaml"})


def test_the_schema_has_no_made_up_titles() -> None:
    assert json.dumps(json_schema()).count('"title"') == 1


def test_the_stored_schema_is_found_by_the_recipes() -> None:
    root = Path(__file__).parents[3]
    assert json.loads((root / "scalellm_trt/data/recipe.schema.json").read_text(encoding="utf-8")) == json_schema()

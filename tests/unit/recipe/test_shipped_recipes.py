from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest
import yaml

from scalellm_trt.recipe import load
from scalellm_trt.recipe.json_schema import json_schema

ROOT = Path(__file__).parents[3]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
MODELINE = "# yaml-language-server: $schema=../scalellm_trt/data/recipe.schema.json"


@pytest.fixture(params=RECIPES, ids=lambda path: path.name)
def path(request: pytest.FixtureRequest) -> Path:
    return Path(request.param)


def test_there_are_recipes() -> None:
    assert ROOT / "recipes/cpu.yaml" in RECIPES


def test_a_recipe_loads(path: Path) -> None:
    load(path)


def test_a_recipe_is_valid_for_editors(path: Path) -> None:
    assert path.read_text(encoding="utf-8").splitlines()[0] == MODELINE
    jsonschema.Draft7Validator(json_schema()).validate(yaml.safe_load(path.read_text(encoding="utf-8")))


def test_a_recipe_opens_with_the_commands_that_use_it(path: Path) -> None:
    header = path.read_text(encoding="utf-8").partition("schema: 1")[0]
    in_the_image = "" if path.name.startswith("cpu") else " --container"
    assert f"scalellm-trt build recipes/{path.name}{in_the_image}\n" in header
    assert f"scalellm-trt plan recipes/{path.name}" in header
    assert f"--model {load(path).recipe.name}\n" in header
    assert "What to expect" in header


def test_no_two_recipes_share_a_name() -> None:
    names = [load(path).recipe.name for path in RECIPES]
    assert len(names) == len(set(names))


def test_the_variants_differ_from_the_quick_start_only_in_their_formats() -> None:
    quick_start = load(ROOT / "recipes/cpu.yaml").recipe
    for path in RECIPES:
        if path.name.startswith("cpu-"):
            recipe = load(path).recipe
            assert recipe.model_copy(update={"name": quick_start.name, "quantization": quick_start.quantization}) == (
                quick_start
            )
            assert recipe.quantization != quick_start.quantization

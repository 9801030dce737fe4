from __future__ import annotations

from scalellm_trt.recipe.keys import known_keys
from scalellm_trt.recipe.reference import recipe_reference
from scalellm_trt.recipe.rules import RULES


def test_the_reference_has_every_key_with_its_description() -> None:
    reference = recipe_reference()
    for path, key in known_keys().items():
        assert f"`{path[-1]}`" in reference
        assert key.description in reference.replace("\\|", "|")


def test_the_reference_has_every_rule() -> None:
    assert recipe_reference().count("\n- ") == len(RULES)


def test_every_row_of_a_table_has_four_cells() -> None:
    rows = [line for line in recipe_reference().splitlines() if line.startswith("|")]
    assert rows
    assert {line.replace("\\|", "").count("|") for line in rows} == {5}

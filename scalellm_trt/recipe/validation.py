"""A merged tree in, a Recipe or every problem it has out: the schema's, then those of the rules between keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import ValidationError

from scalellm_trt.errors import Problem
from scalellm_trt.recipe import rules
from scalellm_trt.recipe.messages import nearest_place, schema_problem
from scalellm_trt.recipe.schema import Recipe
from scalellm_trt.recipe.tree import Refused, dotted, plain, walk, without

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from scalellm_trt.recipe.rules import Violation
    from scalellm_trt.recipe.tree import KeyPath, Node, Plain, Section


def validate(tree: Section) -> tuple[Recipe, list[Problem]]:
    """Check `tree`.

    Returns:
        The recipe, to be used only when there is no problem and no refused node, and the problems. Keys that the
        YAML reader has refused are taken as known trouble: nothing is said about them again.
    """
    nodes = dict(walk(tree))
    refused = {path for path, node in nodes.items() if isinstance(node, Refused)}
    wrong = [path for path in _schema_errors(plain(tree)) if path not in refused]
    problems = [schema_problem(path, nodes, tree.place.file) for path in wrong]
    bad = refused.union(wrong)
    # Rules are asked about the good keys even if others are bad, so that one run shows everything.
    recipe = Recipe.model_validate(_with_required(plain(without(tree, bad))) if bad else plain(tree))
    found = rules.violations(recipe, nodes.keys(), bad)
    return recipe, problems + [_rule_problem(violation, nodes, tree.place.file) for violation in found]


def _schema_errors(values: dict[str, Plain]) -> list[KeyPath]:
    try:
        Recipe.model_validate(values)
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False, include_input=False)
        return [tuple(str(name) for name in detail["loc"]) for detail in details]
    return []


def _with_required(values: dict[str, Plain]) -> dict[str, Plain]:
    model = values.get("model")
    return {
        "name": "placeholder",
        "hardware": "placeholder",
        **values,
        "model": {"source": "./placeholder", **(model if isinstance(model, dict) else {})},
    }


def _rule_problem(violation: Violation, nodes: Mapping[KeyPath, Node], file: Path) -> Problem:
    place = nearest_place(violation.path, nodes)
    return Problem(
        file=file if place is None else place.file,
        line=None if place is None else place.line,
        key=dotted(violation.path),
        message=violation.message,
        hint=violation.hint,
    )

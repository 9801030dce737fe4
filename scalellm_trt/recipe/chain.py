"""A path in, the trees of that file and of those it extends out."""

from __future__ import annotations

import dataclasses
import os.path
from typing import TYPE_CHECKING

from scalellm_trt.errors import Problem, RecipeError
from scalellm_trt.recipe.file_text import read_text
from scalellm_trt.recipe.local_paths import anchored
from scalellm_trt.recipe.messages import limited
from scalellm_trt.recipe.tree import Leaf, Refused, shown
from scalellm_trt.recipe.yaml_reader import read

if TYPE_CHECKING:
    from pathlib import Path

    from scalellm_trt.recipe.tree import Node, Section

MAX_EXTENDS = 8


def read_chain(path: Path) -> tuple[list[Section], list[Problem]]:
    """Read `path` and what it extends.

    Returns:
        One tree per file, `path` first, the nearest base next; and the problems of single values.

    Raises:
        RecipeError: a file of the chain cannot be read, or the chain has no end; with the problems found before, too.
    """
    trees: list[Section] = []
    problems: list[Problem] = []
    link: Leaf | None = None
    try:
        while True:
            tree, found = _read_file(path, link)
            problems += found
            trees.append(anchored(tree, path.parent))
            node = tree.entries.get("extends")
            if node is None:
                return trees, problems
            link = _link(node)
            path = _follow(link, [tree.place.file for tree in trees])
    except RecipeError as error:
        raise RecipeError(limited([*problems, *error.problems], [tree.place.file for tree in trees])) from None


def _read_file(path: Path, link: Leaf | None) -> tuple[Section, list[Problem]]:
    """Read one file; a problem of the whole file is reported where `link` names it."""
    try:
        return read(read_text(path), path)
    except RecipeError as error:
        raise RecipeError([_seen_from(link, problem) for problem in error.problems]) from None


def _seen_from(link: Leaf | None, problem: Problem) -> Problem:
    if link is None or problem.line is not None:
        return problem
    message = f"{shown(link.value)}: {problem.file} {problem.message}"
    return dataclasses.replace(problem, file=link.place.file, line=link.place.line, key="extends", message=message)


def _link(node: Node) -> Leaf:
    if isinstance(node, Leaf) and isinstance(node.value, str) and node.value:
        return node
    # The reader has said already what is wrong with a refused value.
    hint = "Write the path of one recipe, relative to this file: extends: base/NAME.yaml."
    raise RecipeError([] if isinstance(node, Refused) else [_problem(node, "is not the path of a file", hint)])


def _follow(link: Leaf, files: list[Path]) -> Path:
    base = files[-1].parent / str(link.value)
    way = " → ".join(str(file) for file in [*files, base])
    if os.path.realpath(base) in [os.path.realpath(file) for file in files]:
        problem = _problem(link, f"goes round in a circle: {way}", "Remove one of these `extends`.")
        raise RecipeError([problem])
    if len(files) > MAX_EXTENDS:
        problem = _problem(link, f"is a chain of more than {MAX_EXTENDS} files: {way}", "Merge some of them.")
        raise RecipeError([problem])
    return base


def _problem(node: Node, message: str, hint: str) -> Problem:
    return Problem(file=node.place.file, line=node.place.line, key="extends", message=message, hint=hint)

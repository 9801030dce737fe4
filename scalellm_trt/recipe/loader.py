"""A path in, a checked recipe out that remembers where each of its values is written."""

from __future__ import annotations

import dataclasses
import functools
import os.path
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scalellm_trt.errors import Problem, RecipeError
from scalellm_trt.recipe.file_text import read_text
from scalellm_trt.recipe.local_paths import anchored
from scalellm_trt.recipe.messages import limited
from scalellm_trt.recipe.tree import Leaf, dotted, merge, shown, walk, without
from scalellm_trt.recipe.validation import validate
from scalellm_trt.recipe.yaml_reader import read

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from scalellm_trt.recipe.schema import Recipe
    from scalellm_trt.recipe.tree import Node, Place, Section

MAX_EXTENDS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a value comes from: a line of the recipe or of one that it extends, or None: the schema's default."""

    place: Place | None

    def __str__(self) -> str:
        return "default" if self.place is None else str(self.place)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedRecipe:
    """A recipe and its places.

    Attributes:
        recipe: what all files together say; relative paths in it have become absolute.
        path: the file that was loaded, as the caller wrote it.
        files: `path` first, then the files that it extends, nearest first.
        places: dotted key → where it is written; sections too; keys that have their default are not in it.
    """

    recipe: Recipe
    path: Path
    files: tuple[Path, ...]
    places: Mapping[str, Place]

    def origin(self, key: str) -> Origin:
        """Return where the value of the dotted `key` comes from."""
        return Origin(place=self.places.get(key))

    def problem(self, key: str, message: str, hint: str | None = None) -> Problem:
        """Return a problem with `key` that points at its line, or at its section's if the key has its default."""
        parts = key.split(".")
        above = (self.places.get(".".join(parts[:length])) for length in range(len(parts), 0, -1))
        place = next((place for place in above if place is not None), None)
        if place is None:
            return Problem(file=self.path, key=key, message=message, hint=hint)
        return Problem(file=place.file, line=place.line, key=key, message=message, hint=hint)


def load(path: Path) -> LoadedRecipe:
    """Read, merge and check the recipe at `path` and the files that it extends.

    Raises:
        RecipeError: with every problem that was found, in reading order.
    """
    trees, problems = _read_chain(path)
    files = [tree.place.file for tree in trees]
    # A name that came along unnoticed would make two recipes write to one folder of builds/.
    parts = [trees[0], *(without(tree, {("name",)}) for tree in trees[1:])]
    merged = without(functools.reduce(merge, reversed(parts)), {("extends",)})
    recipe, found = validate(merged)
    if problems or found:
        raise RecipeError(limited([*problems, *found], files))
    places = {dotted(key): node.place for key, node in walk(merged)}
    return LoadedRecipe(recipe=recipe, path=path, files=tuple(files), places=places)


def _read_chain(path: Path) -> tuple[list[Section], list[Problem]]:
    """Read `path` and what it extends, nearest first, with the problems of single values.

    Raises:
        RecipeError: a file of the chain cannot be read, or the chain has no end.
    """
    trees: list[Section] = []
    problems: list[Problem] = []
    link: Leaf | None = None
    while True:
        try:
            tree, found = read(read_text(path), path)
        except RecipeError as error:
            broken = [_seen_from(link, problem) for problem in error.problems]
            raise RecipeError([*problems, *broken]) from None
        problems += found
        trees.append(anchored(tree, path.parent))
        node = tree.entries.get("extends")
        if node is None:
            return trees, problems
        link, path = _follow(node, trees, problems)


def _follow(node: Node, trees: list[Section], problems: list[Problem]) -> tuple[Leaf, Path]:
    files = [tree.place.file for tree in trees]
    if not isinstance(node, Leaf) or not isinstance(node.value, str) or not node.value:
        hint = "Write the path of one recipe, relative to this file: extends: base/NAME.yaml."
        message = "is not the path of a file"
        raise RecipeError([*problems, *_link_problem(node, problems, message, hint)])
    base = files[-1].parent / node.value
    chain = " → ".join(str(file) for file in [*files, base])
    if os.path.realpath(base) in [os.path.realpath(file) for file in files]:
        message = f"goes round in a circle: {chain}"
        raise RecipeError([*problems, *_link_problem(node, (), message, "Remove one of these `extends`.")])
    if len(files) > MAX_EXTENDS:
        message = f"is a chain of more than {MAX_EXTENDS} files: {chain}"
        raise RecipeError([*problems, *_link_problem(node, (), message, "Merge some of them.")])
    return node, base


def _link_problem(node: Node, known: tuple[Problem, ...] | list[Problem], message: str, hint: str) -> list[Problem]:
    place = node.place
    if any(problem.key == "extends" and problem.line == place.line for problem in known):
        return []
    return [Problem(file=place.file, line=place.line, key="extends", message=message, hint=hint)]


def _seen_from(link: Leaf | None, problem: Problem) -> Problem:
    """Point a problem of a whole file at the line that names the file."""
    if link is None or problem.line is not None:
        return problem
    message = f"{shown(link.value)}: {problem.file} {problem.message}"
    return dataclasses.replace(problem, file=link.place.file, line=link.place.line, key="extends", message=message)

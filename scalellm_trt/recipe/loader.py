"""A path in, a checked recipe out that remembers where each of its values is written."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scalellm_trt.errors import Problem, RecipeError
from scalellm_trt.recipe.chain import read_chain
from scalellm_trt.recipe.messages import limited
from scalellm_trt.recipe.tree import dotted, merge, walk, without
from scalellm_trt.recipe.validation import validate

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from scalellm_trt.recipe.schema import Recipe
    from scalellm_trt.recipe.tree import Place


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
    trees, problems = read_chain(path)
    files = [tree.place.file for tree in trees]
    # A name that came along unnoticed would make two recipes write to one folder of builds/.
    parts = [trees[0], *(without(tree, {("name",)}) for tree in trees[1:])]
    merged = without(functools.reduce(merge, reversed(parts)), {("extends",)})
    recipe, found = validate(merged)
    if problems or found:
        raise RecipeError(limited([*problems, *found], files))
    places = {dotted(key): node.place for key, node in walk(merged)}
    return LoadedRecipe(recipe=recipe, path=path, files=tuple(files), places=places)

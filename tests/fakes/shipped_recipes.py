"""The recipes of recipes/, each loaded once."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from scalellm_trt import recipe

if TYPE_CHECKING:
    from scalellm_trt.recipe import BackendName, LoadedRecipe


@cache
def shipped() -> dict[Path, LoadedRecipe]:
    """Return them by their path, in order."""
    return {path: recipe.load(path) for path in sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))}


def of_backend(backend: BackendName) -> list[Path]:
    """Return the paths of those for a backend."""
    return [path for path, loaded in shipped().items() if loaded.recipe.backend == backend]

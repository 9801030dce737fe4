"""Where the served model's tokenizer is: as named, or found in the repository that the models are served from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from scalellm_trt.bench.tokens import TOKENIZER_NAME
from scalellm_trt.errors import ArtefactError, Problem, RecipeError

if TYPE_CHECKING:
    from collections.abc import Sequence

HINT = "Name it with --tokenizer: a directory with tokenizer.json, or the recipe of a service that is built."


def find(named: str | None, models: Sequence[str], repository: Path, engines: Sequence[Path] = ()) -> Path:
    """Return the directory of tokenizer.json.

    Args:
        named: `--tokenizer`: a directory, the file itself, or a recipe.
        models: what the targets serve; the first that the repository has is taken.
        repository: where services are published.
        engines: directories of engines among the targets.

    Raises:
        RecipeError: what is named is not there.
        ArtefactError: nothing is named and nothing is found.
    """
    if named is not None:
        return _named(Path(named), repository)
    for directory in [*engines, *(repository / model for model in models if model)]:
        if found := within(directory):
            return found
    served = [found for path in sorted(repository.glob("*")) if path.is_dir() and (found := within(path))]
    if len(served) == 1:
        return served[0]
    what = f"{len(served)} of them" if served else "none"
    message = f"the served model's tokenizer is needed to cut prompts and to count tokens; {repository} has {what}"
    raise ArtefactError(message, hint=HINT)


def within(directory: Path) -> Path | None:
    """Return where tokenizer.json is in a service's or an engine's directory."""
    if (directory / TOKENIZER_NAME).is_file():
        return directory
    found = sorted(directory.glob(f"1/*/{TOKENIZER_NAME}")) or sorted(directory.glob(f"*/{TOKENIZER_NAME}"))
    return found[0].parent if found else None


def _named(path: Path, repository: Path) -> Path:
    if path.suffix in (".yaml", ".yml"):
        from scalellm_trt.recipe import loader

        name = loader.load(path).recipe.name
        found = within(repository / name)
        if found is None:
            message = f"{path}: its service {name} is not built: {repository / name} has no tokenizer"
            raise RecipeError([Problem(key="--tokenizer", message=message, hint=f"scalellm-trt build {path}")])
        return found
    found = within(path.parent if path.name == TOKENIZER_NAME else path)
    if found is None:
        raise RecipeError([Problem(key="--tokenizer", message=f"{path}: no {TOKENIZER_NAME} here", hint=HINT)])
    return found

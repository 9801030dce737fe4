"""`recipes`, `show` and `validate`: look at recipes; nothing is built or downloaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scalellm_trt.errors import Problem, RecipeError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scalellm_trt.recipe import LoadedRecipe

_COLUMNS = ("name", "hardware", "model", "weights", "kv_cache_dtype", "backend", "file")

Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file to `app`."""
    app.command()(recipes)
    app.command()(show)
    app.command()(validate)


def recipes(
    directory: Annotated[Path, typer.Option(help="Where the recipes are.")] = Path("recipes"), as_json: Json = False
) -> None:
    """List the recipes that can be built."""
    rows = [_row(path) for path in recipe_files(directory)]
    if as_json:
        typer.echo(json.dumps({"recipes": rows}, indent=2))
        return
    good = [row for row in rows if not row["problems"]]
    for line in _table([_COLUMNS, *(tuple(_short(row[column]) for column in _COLUMNS) for row in good)]):
        typer.echo(line)
    for row in rows:
        if row["problems"]:
            typer.echo(f"{row['file']} does not load: scalellm-trt validate {row['file']}", err=True)


def show(recipe: Annotated[Path, typer.Argument(help="A recipe file.")], as_json: Json = False) -> None:
    """Print a recipe with every value and where it comes from."""
    from scalellm_trt.recipe import load
    from scalellm_trt.recipe.resolved import resolved_yaml, values

    loaded = load(recipe)
    if not as_json:
        typer.echo(resolved_yaml(loaded), nl=False)
        return
    origins = {key: {"value": value, "origin": str(loaded.origin(key))} for key, value in values(loaded).items()}
    whole = loaded.recipe.model_dump(by_alias=True)
    typer.echo(json.dumps({"file": str(recipe), "recipe": whole, "values": origins}, indent=2))


def validate(recipe: Annotated[list[Path], typer.Argument(help="Recipe files.")], as_json: Json = False) -> None:
    """Report every problem of the recipes given.

    Exit code 2 where a recipe is wrong, 3 where it asks for what this machine cannot do.
    """
    problems: list[Problem] = []
    unsupported: list[Problem] = []
    good: list[LoadedRecipe] = []
    for path in recipe:
        try:
            good.append(check(path))
        except RecipeError as error:
            problems += error.problems
        except UnsupportedError as error:
            unsupported += error.problems
    problems += _taken_names(good)
    if not as_json:
        for loaded in good:
            typer.echo(f"{loaded.path}: ok, {loaded.recipe.name}")
    # A file that several recipes extend is wrong once.
    found_problems = list(dict.fromkeys([*problems, *unsupported]))
    if problems:
        raise RecipeError(found_problems)
    if unsupported:
        raise UnsupportedError(found_problems)
    if as_json:
        found = [{"file": str(loaded.path), "name": loaded.recipe.name} for loaded in good]
        typer.echo(json.dumps({"recipes": found, "problems": []}, indent=2))


def check(path: Path) -> LoadedRecipe:
    """Find what is wrong with one recipe: the only place that `validate` asks.

    Raises:
        RecipeError: with every problem of the recipe.
        UnsupportedError: with everything that this machine or the model cannot do.
    """
    from scalellm_trt import pipeline, recipe

    loaded = recipe.load(path)
    if problems := pipeline.check(path, pipeline.Workspace()):
        raise UnsupportedError(problems)
    return loaded


def recipe_files(directory: Path) -> list[Path]:
    """Return the recipes in `directory`: its `*.yaml`; what lies deeper is there to be extended.

    Raises:
        RecipeError: there are none.
    """
    files = sorted(directory.glob("*.yaml"))
    if not files:
        hint = "Run the command in the project's folder, or name another one with --directory."
        raise RecipeError([Problem(file=directory, message="holds no recipes (*.yaml)", hint=hint)])
    return files


def _row(path: Path) -> dict[str, object]:
    from scalellm_trt.recipe import load

    try:
        recipe = load(path).recipe
    except RecipeError as error:
        return {"file": str(path), "problems": [str(problem) for problem in error.problems]}
    return {
        "name": recipe.name,
        "hardware": recipe.hardware,
        "model": recipe.model.source,
        "weights": recipe.quantization.weights,
        "kv_cache_dtype": recipe.quantization.kv_cache_dtype,
        "backend": recipe.backend,
        "file": str(path),
        "problems": [],
    }


def _short(cell: object) -> str:
    """Leave out where a file is downloaded from; the JSON has it."""
    text = str(cell)
    return text.rpartition("/")[2] if text.startswith(("pypi:", "gguf:", "/")) else text


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _taken_names(loaded: list[LoadedRecipe]) -> list[Problem]:
    first: dict[str, LoadedRecipe] = {}
    problems = []
    for candidate in loaded:
        other = first.setdefault(candidate.recipe.name, candidate)
        if other.path.resolve() != candidate.path.resolve():
            message = f"{candidate.recipe.name!r} is also the name of {other.path}"
            hint = "Both would build into one folder and serve under one name: rename one of them."
            problems.append(candidate.problem("name", message, hint))
    return problems

"""`migrate RECIPE`: what becomes of a recipe of the engine generation on the maintained path, and the new recipe."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotation
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from scalellm_trt.migrate import Migration


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(migrate)


def migrate(
    recipe: Annotated[Path, typer.Argument(help="A recipe with backend: tensorrt_llm.")],
    toolchain: Annotated[
        str | None,
        typer.Option(help="The versions to go to; by default the newest whose image holds tritonserver."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Write the new recipe to this file, which must not exist.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Print what becomes of a recipe on the maintained path, and write the new recipe.

    Exit code 3 where there is no way, with the reason.
    """
    from scalellm_trt import migrate as migration
    from scalellm_trt.cli import tables
    from scalellm_trt.recipe import load

    made = migration.migrate(load(recipe), toolchain)
    text = migration.recipe_text(made, recipe)
    if output is not None:
        _write(output, text)
    if json:
        typer.echo(to_json(made, text, output))
        return
    show(made, tables.console())
    if output is None:
        typer.echo(f"\n{text}", nl=False)
    else:
        typer.echo(f"\nWritten: {output}. Next: scalellm-trt plan {output}")


def show(migration: Migration, on: Console) -> None:
    """Print the changes, then the new names of what stays, then the notes."""
    from rich.markup import escape

    from scalellm_trt.cli.tables import table

    changes = table(on, "changes", "was", "becomes", "because")
    for change in migration.changes:
        changes.add_row(change.key, escape(str(change.before)), escape(str(change.after)), escape(change.reason))
    on.print(changes)
    on.print()
    _show_names(migration, on)
    on.print()
    for note in migration.notes:
        on.print(escape(note), soft_wrap=True)


def _show_names(migration: Migration, on: Console) -> None:
    """Print each option in three lines: a column of a table would cut names in two."""
    from rich.markup import escape
    from rich.padding import Padding

    on.print("[bold]stays, under another name[/]")
    for name in migration.renamings:
        on.print(f"{name.key}: [bold]{escape(str(name.value))}[/]", soft_wrap=True)
        on.print(f"    {escape(name.engine)} → {escape(name.llmapi or 'no argument of LLM(...)')}", soft_wrap=True)
        on.print(Padding(escape(name.note), (0, 0, 0, 4)))


def to_json(migration: Migration, text: str, output: Path | None) -> str:
    """Return the migration as JSON text."""
    import json
    from dataclasses import asdict

    body = asdict(migration) | {"recipe": text, "output": None if output is None else str(output)}
    return json.dumps(body, indent=2)


def _write(path: Path, text: str) -> None:
    from scalellm_trt.errors import Problem, RecipeError

    try:
        with path.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError as error:
        hint = "Name another file, or remove this one."
        raise RecipeError([Problem(key="--output", message=f"{path} is there already", hint=hint)]) from error
    except OSError as error:
        hint = "Name a file in a folder that you may write to."
        message = f"{path} cannot be written: {error.strerror}"
        raise RecipeError([Problem(key="--output", message=message, hint=hint)]) from error

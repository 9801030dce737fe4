"""`doctor [RECIPE]`: what this machine can do, with the fix for what it cannot."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Protocol

    from rich.console import Console

    from scalellm_trt.doctor import Check, Surroundings
    from scalellm_trt.facts import GpuToolchain

    class Look(Protocol):
        """Reads the machine, as `doctor.look` does."""

        def __call__(
            self, folder: Path, repository: Path, toolchain: GpuToolchain | None, *, in_container: bool
        ) -> Surroundings:
            """Return what was found."""
            ...


COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


def register(app: typer.Typer, look: Look | None = None) -> None:
    """Add the command; `look` reads the machine, by default `doctor.look`."""

    @app.command()
    def doctor(
        recipe: Annotated[Path | None, typer.Argument(help="Judge what this recipe needs only.")] = None,
        hardware: Annotated[
            str | None, typer.Option(help="Judge what this class of cards needs, without a recipe: t4, l4, …")
        ] = None,
        toolchain: Annotated[str | None, typer.Option(help="With --hardware: the versions to judge by.")] = None,
        container: Annotated[
            bool, typer.Option("--container", help="Look into the toolchain's image, which must be here already.")
        ] = False,
        builds: Annotated[Path, typer.Option(help="Where artefacts are kept.")] = Path("builds"),
        repository: Annotated[Path, typer.Option(help="The model repository to look at.")] = Path("triton_repo"),
        json: Annotated[bool, typer.Option("--json", help="Print the checks as JSON.")] = False,
    ) -> None:
        """Say what this machine, or the image this runs in, can do, and how to fix what it cannot.

        Exits 4 where the recipe cannot be built.
        """
        from scalellm_trt import doctor as examination
        from scalellm_trt.cli import tables
        from scalellm_trt.pipeline import Workspace

        workspace = Workspace(builds_dir=builds, repository_dir=repository)
        question = examination.about(recipe, hardware, toolchain, workspace)
        wanted = None if question.task is None else question.task.gpu
        around = (look or examination.look)(builds, repository, wanted, in_container=container)
        checks = examination.examine(around, question)
        code = examination.exit_code(checks)
        if json:
            typer.echo(to_json(checks, code))
        else:
            show(checks, tables.console())
        raise typer.Exit(code)


def show(checks: Sequence[Check], on: Console) -> None:
    """Print one line per check, then the fixes."""
    from rich.markup import escape

    from scalellm_trt.cli.tables import table

    rows = table(on, "", "what", "found", "needed")
    for check in checks:
        mark = f"[{COLOURS[check.status]}]{check.status}[/]"
        rows.add_row(mark, escape(check.name), escape(check.found), escape(check.needed))
    on.print(rows)
    for check in checks:
        if check.fix:
            on.print(f"{check.name}: {escape(check.fix)}", soft_wrap=True)


def to_json(checks: Sequence[Check], exit_code: int) -> str:
    """Return the checks as JSON text."""
    import json
    from dataclasses import asdict

    return json.dumps({"exit_code": exit_code, "checks": [asdict(check) for check in checks]}, indent=2)

"""`cache ls | verify | prune`: the artefacts in `builds/`, whether they are intact, and which are no longer used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from scalellm_trt.cli import tables

if TYPE_CHECKING:
    from scalellm_trt.pipeline import CacheEntry

BuildsOption = Annotated[Path, typer.Option("--builds", help="Where artefacts, cache and logs are kept.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(help="Look at the built artefacts, check them, remove the unused.", no_args_is_help=True)
    group.command("ls")(ls)
    group.command("verify")(verify)
    group.command("prune")(prune)
    app.add_typer(group, name="cache")


def ls(builds: BuildsOption = Path("builds"), as_json: JsonOption = False) -> None:
    """List the artefacts, their sizes, and the recipes that use them now."""
    from scalellm_trt import pipeline

    entries = pipeline.cache_entries(builds)
    if as_json:
        typer.echo(json.dumps([_as_json(entry) for entry in entries]))
        return
    on = tables.console()
    on.print(f"{builds}: {sum(entry.num_bytes for entry in entries) / 2**20:.1f} MiB")
    rows = tables.table(on, "stage", "key", "MiB", "created", "used by", numbers={"MiB"})
    for entry in entries:
        users = escape(", ".join(entry.used_by)) or "[dim]nobody"
        size = f"{entry.num_bytes / 2**20:.1f}"
        rows.add_row(entry.manifest.stage, entry.directory.name, size, entry.manifest.created, users)
    on.print(rows)


def verify(builds: BuildsOption = Path("builds"), as_json: JsonOption = False) -> None:
    """Hash every artefact and read every checkpoint back; exit 6 when one is damaged."""
    from scalellm_trt import pipeline
    from scalellm_trt.errors import ArtefactError

    damage = pipeline.verify_cache(builds)
    if as_json:
        typer.echo(json.dumps({str(directory): problems for directory, problems in damage.items()}))
    else:
        for directory, problems in damage.items():
            typer.echo(f"{'damaged' if problems else 'intact '}  {directory}")
            for problem in problems:
                typer.echo(f"  {problem}")
    if broken := [str(directory) for directory, problems in damage.items() if problems]:
        message = f"{len(broken)} of {len(damage)} artefacts are damaged: {', '.join(broken)}"
        raise ArtefactError(message, hint="`scalellm-trt build RECIPE` makes them again.")


def prune(builds: BuildsOption = Path("builds"), as_json: JsonOption = False) -> None:
    """Remove the artefacts that no recipe uses, and what interrupted builds left behind."""
    from scalellm_trt import pipeline

    removed = pipeline.prune_cache(builds)
    if as_json:
        typer.echo(json.dumps([str(path) for path in removed]))
    else:
        typer.echo("\n".join(f"removed {path}" for path in removed) or "nothing to remove")


def _as_json(entry: CacheEntry) -> dict[str, object]:
    return {
        "stage": entry.manifest.stage,
        "directory": str(entry.directory),
        "num_bytes": entry.num_bytes,
        "created": entry.manifest.created,
        "digest": entry.manifest.digest,
        "used_by": list(entry.used_by),
    }

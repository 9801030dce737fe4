"""`build R`: quantize → compile → assemble, with a live timeline; resumes, and does nothing when nothing changed."""

from __future__ import annotations

import dataclasses
import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from scalellm_trt.cli import tables
from scalellm_trt.cli.timeline import outcome, timeline

if TYPE_CHECKING:
    from rich.console import Console

    from scalellm_trt.backends.container import EngineName
    from scalellm_trt.pipeline import BuildReport, Step, StepPreview

RecipeArgument = Annotated[Path, typer.Argument(help="Recipe file.", show_default=False)]
BuildsOption = Annotated[Path, typer.Option("--builds", help="Where artefacts, cache and logs are kept.")]
RepositoryOption = Annotated[Path, typer.Option("--repository", help="The model repository to publish to.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("build")(build)


def build(
    recipe: RecipeArgument,
    until: Annotated[str, typer.Option(help="Stop after this step: plan, quantize, compile or assemble.")] = "assemble",
    force: Annotated[
        list[str] | None, typer.Option(help="Run this stage even when nothing changed; may be repeated.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would run and why; change nothing.")] = False,
    container: Annotated[
        bool, typer.Option("--container", help="Compile inside the toolchain's image, with docker or podman.")
    ] = False,
    smoke: Annotated[
        bool, typer.Option(help="Ask a new GPU engine a few questions before it is published; a bad one is not.")
    ] = True,
    builds: BuildsOption = Path("builds"),
    repository: RepositoryOption = Path("triton_repo"),
    as_json: JsonOption = False,
) -> None:
    """Build a recipe into the model repository: quantize, compile, assemble.

    An interrupted build goes on where it stopped; one with nothing changed runs no stage.
    """
    from scalellm_trt import pipeline

    workspace = pipeline.Workspace(
        builds_dir=builds, repository_dir=repository, container=_container_engine(dry_run) if container else None
    )
    last, forced = (
        pipeline.parse_step(until, "--until"),
        frozenset(pipeline.parse_step(name, "--force") for name in force or ()),
    )
    console = tables.console(stderr=as_json)
    if dry_run:
        previews = pipeline.dry_run(recipe, workspace=workspace, until=last, force=forced, smoke=smoke)
        _show_dry_run(previews, repository, as_json)
        return
    with timeline(console) as reporter:
        report = pipeline.build(recipe, workspace=workspace, reporter=reporter, until=last, force=forced, smoke=smoke)
    if as_json:
        typer.echo(json.dumps({**dataclasses.asdict(report), "num_stages_run": report.num_stages_run}))
    else:
        _show_summary(console, report, last, repository, is_in_image=container)


def _show_summary(console: Console, report: BuildReport, last: Step, repository: Path, *, is_in_image: bool) -> None:
    total = sum(step.seconds for step in report.steps)
    if report.num_stages_run:
        console.print(f"\n{report.name}: {total:.1f} s", highlight=False)
        rows = tables.table(console, "step", "seconds", "share", "what", numbers={"seconds", "share"})
        for step in report.steps:
            rows.add_row(step.step, f"{step.seconds:.1f}", f"{step.seconds / total:.0%}", escape(outcome(step)))
        console.print(rows)
    else:
        console.print(f"{report.name}: nothing changed, 0 stages run", highlight=False)
    if last == "assemble":
        how = (
            f"scalellm-trt serve --container --repository {repository}"
            if is_in_image
            else f"scripts/tritonserver --model-repository {repository}"
        )
        console.print(f"Serve it: {how}", highlight=False, soft_wrap=True)


def _container_engine(is_dry_run: bool) -> EngineName:
    from scalellm_trt.backends import container

    return (container.find_engine() or container.ENGINES[0]) if is_dry_run else container.require_engine()


def _show_dry_run(steps: list[StepPreview], repository: Path, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps([_as_json(step) for step in steps]))
        return
    for step in steps:
        typer.echo(f"{step.step}: {'would run: ' + '; '.join(step.reasons) if step.reasons else 'unchanged'}")
        for argv in step.commands:
            typer.echo(f"  $ {shlex.join(argv)}")
        for path, text in step.files.items():
            size = "linked or copied from the engine" if text is None else f"{len(text.encode())} bytes"
            typer.echo(f"  {repository / path}  {size}")


def _as_json(step: StepPreview) -> dict[str, object]:
    body = dataclasses.asdict(step)
    return {"step": body.pop("step"), "would_run": bool(step.reasons), **body}

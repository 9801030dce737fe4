"""`plan RECIPE`: what fits, how much KV cache, what speed to expect, every decision with its reason. Builds nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scalellm_trt.errors import Problem, RecipeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from scalellm_trt.detect import Machine
    from scalellm_trt.pipeline import Step, Study, Workspace
    from scalellm_trt.plan import Objective, Outlook, Plan

    Steps = list[tuple[Step, list[str]]]
    Look = Callable[[Path, Workspace, str | None, Objective | None, int, int], Study]
    Preview = Callable[[Path, Workspace], Steps]


def register(app: typer.Typer, look: Look | None = None, preview: Preview | None = None) -> None:
    """Add the command; `look` studies a recipe file, `preview` says why each step of a build would run."""

    @app.command()
    def plan(
        recipe: Annotated[Path, typer.Argument(help="The recipe, a YAML file.")],
        hardware: Annotated[
            str | None, typer.Option(help="What if: plan for this class of hardware instead of the recipe's.")
        ] = None,
        suggest: Annotated[
            bool, typer.Option("--suggest", help="Search the best limits for the card; print them to paste.")
        ] = False,
        objective: Annotated[
            str, typer.Option(help="What --suggest maximises: throughput (within slo) or sequences.")
        ] = "throughput",
        prompt: Annotated[int, typer.Option(min=1, help="Tokens of the prompt that speeds are stated for.")] = 512,
        max_tokens: Annotated[int, typer.Option(min=1, help="Tokens of its answer.")] = 256,
        json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
        builds: Annotated[Path, typer.Option(help="Where artefacts are kept.")] = Path("builds"),
        repository: Annotated[Path, typer.Option(help="The model repository.")] = Path("triton_repo"),
    ) -> None:
        """Show what a build would do: memory, verdict, speed, score, decisions, stages. Builds nothing.

        Speeds and scores are estimates. Exit code 3 where the plan does not fit.
        """
        workspace = _workspace(builds, repository)
        wanted = _objective(objective) if suggest else None
        study = (look or _look)(recipe, workspace, hardware, wanted, prompt, max_tokens)
        if json:
            _print_json(study, builds, prompt, max_tokens)
            return
        _print(study, recipe, workspace, prompt, max_tokens, is_advice_wanted=suggest)
        if study.refusal is not None:
            raise study.refusal
        if not study.changes:
            _print_steps((preview or _preview)(recipe, workspace), recipe, study.plan)


def _print(
    study: Study, recipe: Path, workspace: Workspace, prompt: int, max_tokens: int, *, is_advice_wanted: bool
) -> None:
    from scalellm_trt import detect
    from scalellm_trt.cli import measured, plan_speed, plan_view, tables

    on = tables.console()
    seen = _outlook(study, prompt, max_tokens)
    machine: Machine = detect.machine(workspace.builds_dir)
    plan_view.show_head(study, seen, machine, on)
    plan_view.show_memory(study.plan, machine, on)
    if study.plan.fits:
        plan_speed.show(study.plan, seen, on)
    measured.show_measured(study.plan, workspace.builds_dir, on)
    plan_view.show_decisions(study.plan, on)
    if study.suggestion is not None:
        plan_speed.show_suggestion(study.suggestion, recipe, on)
    elif is_advice_wanted:
        plan_speed.show_no_suggestion(study.recipe.slo, on)


def _print_json(study: Study, builds: Path, prompt: int, max_tokens: int) -> None:
    import sys
    from dataclasses import asdict

    from scalellm_trt.cli import measured
    from scalellm_trt.plan import report_json

    refusal, found = study.refusal, measured.find(study.plan, builds)
    text = report_json(
        study.plan,
        _outlook(study, prompt, max_tokens),
        changes=study.changes,
        problems=() if refusal is None else refusal.problems,
        suggestion=study.suggestion,
        measured=None if found is None else asdict(found),
    )
    typer.echo(text, nl=False)
    if refusal is not None:
        print(refusal, file=sys.stderr)
        raise typer.Exit(refusal.exit_code)


def _outlook(study: Study, prompt: int, max_tokens: int) -> Outlook:
    from scalellm_trt.plan import outlook

    slo = study.recipe.slo
    return outlook(
        study.plan, prompt=prompt, max_tokens=max_tokens, ttft_limit_ms=slo.ttft_ms, tpot_limit_ms=slo.tpot_ms
    )


def _print_steps(steps: Steps, recipe: Path, plan: Plan) -> None:
    """Print what a build would run, and why, and the command."""
    import shlex

    from rich.markup import escape

    from scalellm_trt import pipeline
    from scalellm_trt.cli import tables

    on = tables.console()
    on.print()
    for step, reasons in steps:
        what = f"would run: {'; '.join(reasons)}" if reasons else "unchanged"
        on.print(f"{step:<9} {escape(what)}")
    on.print(f"\nNext: [bold]{escape(shlex.join(pipeline.build_command(recipe, plan)))}[/]", soft_wrap=True)


def _objective(text: str) -> Objective:
    if text == "throughput":
        return "throughput"
    if text == "sequences":
        return "sequences"
    problem = Problem(
        key="--objective", message=f"{text!r} is not an objective", hint="Allowed: throughput, sequences."
    )
    raise RecipeError([problem])


def _workspace(builds: Path, repository: Path) -> Workspace:
    from scalellm_trt.pipeline import Workspace

    return Workspace(builds_dir=builds, repository_dir=repository)


def _look(
    recipe: Path, workspace: Workspace, hardware: str | None, objective: Objective | None, prompt: int, max_tokens: int
) -> Study:
    from scalellm_trt import pipeline

    return pipeline.study(
        recipe, workspace, hardware=hardware, objective=objective, prompt=prompt, max_tokens=max_tokens
    )


def _preview(recipe: Path, workspace: Workspace) -> Steps:
    from scalellm_trt import pipeline

    return pipeline.preview(recipe, workspace=workspace, until="assemble", force=frozenset())

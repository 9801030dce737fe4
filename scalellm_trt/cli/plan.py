"""`plan RECIPE`: the memory of every stage against this machine, every decision with its reason. Builds nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from scalellm_trt.detect import Machine
    from scalellm_trt.pipeline import Step, Workspace
    from scalellm_trt.plan import Plan

    Explain = Callable[[Path, Workspace], tuple[Plan, list[tuple[Step, list[str]]]]]


def register(app: typer.Typer, explain: Explain | None = None) -> None:
    """Add the command; `explain` gives the plan of a recipe file and why each step would run."""

    @app.command()
    def plan(
        recipe: Annotated[Path, typer.Argument(help="The recipe, a YAML file.")],
        json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
        builds: Annotated[Path, typer.Option(help="Where artefacts are kept.")] = Path("builds"),
        repository: Annotated[Path, typer.Option(help="The model repository.")] = Path("triton_repo"),
    ) -> None:
        """Show what a build would do: memory per stage, decisions with reasons, stages. Builds nothing."""
        from scalellm_trt import detect
        from scalellm_trt.cli import tables
        from scalellm_trt.pipeline import Workspace
        from scalellm_trt.plan import to_json

        made, steps = (explain or _explain)(recipe, Workspace(builds_dir=builds, repository_dir=repository))
        if json:
            typer.echo(to_json(made), nl=False)
        else:
            on = tables.console()
            show(made, detect.machine(builds), on)
            show_steps(steps, recipe, on)


def show(plan: Plan, machine: Machine, on: Console) -> None:
    """Print a plan: who, memory, decisions."""
    from rich.markup import escape

    on.print(f"[bold]{escape(plan.name)}[/]  {escape(plan.model.source)}")
    on.print(
        f"{plan.backend} ({plan.toolchain}) on {plan.hardware}: {escape(machine.cpu_model)}, "
        f"{machine.num_usable_cores} cores, {' '.join(machine.isa)}"
    )
    _show_memory(plan, machine, on)
    _show_decisions(plan, on)


def show_steps(steps: list[tuple[Step, list[str]]], recipe: Path, on: Console) -> None:
    """Print what a build would run, and why, and the command."""
    from rich.markup import escape

    on.print()
    for step, reasons in steps:
        what = f"would run: {'; '.join(reasons)}" if reasons else "unchanged"
        on.print(f"{step:<9} {escape(what)}", soft_wrap=True)
    on.print(f"\nNext: [bold]scalellm-trt build {escape(str(recipe))}[/]", soft_wrap=True)


def _show_memory(plan: Plan, machine: Machine, on: Console) -> None:
    from scalellm_trt.cli.tables import table
    from scalellm_trt.memory import format_gib

    rows = table(on, "stage", "place", "needs", "usable", "made of")
    for budget in plan.budgets:
        parts = ", ".join(f"{item.name} {format_gib(item.num_bytes)}" for item in budget.items)
        available = format_gib(budget.available_bytes)
        fits = available if budget.fits else f"[red]{available}[/]"
        rows.add_row(budget.stage, budget.place, format_gib(budget.total_bytes), fits, parts)
    on.print()
    on.print(rows)
    needed = max(budget.total_bytes for budget in plan.budgets if budget.place == "host")
    if needed > machine.memory_available_bytes:
        free = format_gib(machine.memory_available_bytes)
        on.print(f"[yellow]Only {free} of memory are available right now; other processes hold the rest.[/]")


def _show_decisions(plan: Plan, on: Console) -> None:
    from rich.markup import escape

    from scalellm_trt.cli.tables import table

    rows = table(on, "decided", "value", "because")
    for decision in plan.decisions:
        rows.add_row(decision.field, escape(decision.value), escape(decision.reason))
    on.print()
    on.print(rows)


def _explain(recipe: Path, workspace: Workspace) -> tuple[Plan, list[tuple[Step, list[str]]]]:
    from scalellm_trt import pipeline

    plan = pipeline.explain(recipe, workspace)
    return plan, pipeline.preview(recipe, workspace=workspace, until="assemble", force=frozenset())

"""`plan RECIPE`: the memory of every stage against this machine, every decision with its reason. Builds nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from scalellm_trt.detect import Machine
    from scalellm_trt.plan import Plan

    Explain = Callable[[Path], Plan]


def register(app: typer.Typer, explain: Explain | None = None) -> None:
    """Add the command; `explain` makes the plan of a recipe file, by default `pipeline.explain`."""

    @app.command()
    def plan(
        recipe: Annotated[Path, typer.Argument(help="The recipe, a YAML file.")],
        json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
    ) -> None:
        """Show what a build would do: memory per stage, decisions with reasons, stages. Builds nothing."""
        from scalellm_trt import detect
        from scalellm_trt.cli import tables
        from scalellm_trt.plan import to_json

        made = (explain or _explain)(recipe)
        if json:
            typer.echo(to_json(made), nl=False)
        else:
            show(made, recipe, detect.machine(), tables.console())


def show(plan: Plan, recipe: Path, machine: Machine, on: Console) -> None:
    """Print a plan: who, memory, decisions, stages, next step."""
    from rich.markup import escape

    on.print(f"[bold]{escape(plan.name)}[/]  {escape(plan.model.source)}")
    on.print(
        f"{plan.backend} ({plan.toolchain}) on {plan.hardware}: {escape(machine.cpu_model)}, "
        f"{machine.num_usable_cores} cores, {' '.join(machine.isa)}"
    )
    _show_memory(plan, machine, on)
    _show_decisions(plan, on)
    _show_stages(plan, recipe, on)


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


def _show_stages(plan: Plan, recipe: Path, on: Console) -> None:
    from rich.markup import escape

    from scalellm_trt.plan import stage_inputs, stage_names

    on.print()
    for stage in stage_names(plan):
        on.print(f"{stage} depends on: {escape(', '.join(stage_inputs(plan, stage)))}", soft_wrap=True)
    on.print(f"\nNext: [bold]scalellm-trt build {escape(str(recipe))}[/]", soft_wrap=True)


def _explain(recipe: Path) -> Plan:
    from scalellm_trt.pipeline import explain

    return explain(recipe)

"""A plan on the screen: the verdict first, then memory by stage and the decisions. Prints, decides nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from scalellm_trt import facts
from scalellm_trt.cli.tables import table
from scalellm_trt.memory import format_gib
from scalellm_trt.plan import device_budget

if TYPE_CHECKING:
    from rich.console import Console

    from scalellm_trt.detect import Machine
    from scalellm_trt.memory import MemoryBudget, Place, Stage
    from scalellm_trt.pipeline import Study
    from scalellm_trt.plan import Decision, Outlook, Plan

STAGES: tuple[Stage, ...] = ("quantize", "compile", "load", "serve")
WIDE = 120  # columns, from which there is room to say how each figure comes about


def show_head(study: Study, seen: Outlook, machine: Machine, on: Console) -> None:
    """Print who, where, and what a person wants to know first: does it fit, how much KV cache, how fast, what score."""
    plan = study.plan
    hardware = facts.hardware()[plan.hardware]
    ranks = plan.tp_size * plan.pp_size
    where = f"{ranks} x {hardware.description}, tp_size {plan.tp_size}" if ranks > 1 else hardware.description
    if hardware.kind == "cpu":
        where = f"{machine.cpu_model}, {machine.num_usable_cores} cores, {' '.join(machine.isa)}"
    on.print(f"[bold]{escape(plan.name)}[/]  {escape(plan.model.source)}")
    on.print(escape(f"{plan.backend} ({plan.toolchain}) on {plan.hardware}: {where}"))
    for change in study.changes:
        on.print(f"  [cyan]what if[/] {change.field}: {escape(change.value)}  [dim]{escape(change.reason)}[/]")
    on.print()
    rows = Table.grid(padding=(0, 2))
    rows.add_row("[bold]verdict[/]", _verdict(plan))
    if study.refusal is not None:
        rows.add_row("", escape(str(study.refusal.problems[0].hint)))
    rows.add_row("[bold]KV cache[/]", _pool(plan, seen))
    if seen.speed is not None and plan.fits:
        rows.add_row("[bold]speed[/]", _speed(plan, seen))
    if seen.score is not None and plan.fits:
        rows.add_row("[bold]score[/]", _score(seen))
    on.print(rows)


def show_memory(plan: Plan, machine: Machine, on: Console) -> None:
    """Print the memory that decides item by item, the rest in a line per stage."""
    main: Place = "device" if any(budget.place == "device" for budget in plan.budgets) else "host"
    on.print()
    on.print("[bold]device memory[/] of one card" if main == "device" else "[bold]memory[/] of this machine")
    on.print(_matrix([budget for budget in plan.budgets if budget.place == main], on))
    others = table(on, "stage", "place", "needs", "here", "made of", numbers=("needs", "here"))
    for budget in plan.budgets:
        if budget.place != main:
            parts = ", ".join(f"{name} {format_gib(num_bytes)}" for name, num_bytes in budget.labelled().items())
            others.add_row(budget.stage, budget.place, format_gib(budget.total_bytes), _available(budget), parts)
    on.print(others)
    _show_warnings(plan, machine, on)


def show_decisions(plan: Plan, on: Console) -> None:
    """Print every decision with its reason, in two lines on a narrow screen; what nobody asked for stands out."""
    if on.width >= WIDE:
        rows = table(on, "decided", "value", "because")
        for decision in plan.decisions:
            rows.add_row(_marked(decision), escape(decision.value), _reason(decision))
        on.print(rows)
        return
    on.print("\n[bold]decided, because[/]")
    for decision in plan.decisions:
        on.print(f"{_marked(decision)}: [bold]{escape(decision.value)}[/]")
        on.print(Padding(_reason(decision), (0, 0, 0, 4)))


def _marked(decision: Decision) -> str:
    return f"! {decision.field}" if decision.is_warning else decision.field


def _reason(decision: Decision) -> str:
    return f"[yellow]{escape(decision.reason)}[/]" if decision.is_warning else escape(decision.reason)


def _verdict(plan: Plan) -> str:
    budgets = plan.binding_budgets
    worst = max(budgets, key=lambda budget: budget.total_bytes / max(1, budget.available_bytes))
    place = "of the card" if worst.place == "device" else "of memory"
    figures = f"{worst.stage} takes {format_gib(worst.total_bytes)} of {format_gib(worst.available_bytes)} {place}"
    if plan.fits:
        spare = format_gib(worst.available_bytes - worst.total_bytes)
        return f"[bold green]fits[/]: {figures}, {spare} to spare{_weights(plan)}"
    return f"[bold red]DOES NOT FIT[/]: {figures}{_weights(plan)}"


def _weights(plan: Plan) -> str:
    serve = device_budget(plan)
    if serve is None:
        return ""
    weights, pool = serve.item_bytes("weights"), serve.item_bytes("KV cache")
    rest = format_gib(serve.total_bytes - weights - pool)
    return f"; weights {format_gib(weights)}, KV cache {format_gib(pool)}, the rest {rest}"


def _pool(plan: Plan, seen: Outlook) -> str:
    pool = seen.pool
    each = "" if plan.services == 1 else f"{plan.services} services, each "
    text = (
        f"{each}{format_gib(pool.num_bytes)} = {pool.max_tokens_in_paged_kv_cache:,} tokens x "
        f"{pool.bytes_per_token:,} B: {_count(pool.sequences, 'sequence')} of {plan.limits.max_seq_len:,}, "
        f"or {_count(pool.concurrency, 'request')} of {seen.prompt:,} + {seen.max_tokens:,} tokens at once"
    )
    if pool.last_loader_fraction is not None and plan.services > 1:
        text += f"; absolute, whoever loads first: the last needs a fraction of {pool.last_loader_fraction:.2f}"
    return text


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _speed(plan: Plan, seen: Outlook) -> str:
    speed = seen.speed
    assert speed is not None, "asked for by the caller"
    first = next(each for each in speed.first_token if each.prompt == speed.prompt)
    one, most = speed.batches[0], speed.batches[-1]
    together = "" if plan.services == 1 else f" with all {plan.services} services loaded"
    band = f"±{speed.error_band:.0%}{'' if speed.is_calibrated else ', no points of this card'}"
    text = (
        f"{first.ttft_all_services_ms:,.0f} ms to the first token of {speed.prompt:,}, {one.itl_ms:.1f} ms a token "
        f"({1000 / one.itl_ms:.0f} tokens/s){together}"
    )
    if most.batch > 1:
        text += f"; {most.output_tokens_per_s:,.0f} tokens/s at {most.batch} requests"
    return f"{text} [dim](estimate {band})[/]"


def _score(seen: Outlook) -> str:
    score = seen.score
    assert score is not None, "asked for by the caller"
    price, origin = score.price, score.price.origin
    cards = "" if score.num_cards == 1 else f"{score.num_cards} x "
    late = f"beyond the threshold of {score.threshold_s:g} s" if score.is_first_token_late else None
    faults = ", ".join(each for each in (late, score.tpot_fault) if each is not None)
    missed = f" [red]{faults}[/]" if faults else ""
    between = "" if score.tpot_limit_ms is None or score.tpot_ms is None else f"; TPOT {score.tpot_ms:.1f} ms"
    cost = "" if seen.usd_per_million_tokens is None else f"; ${seen.usd_per_million_tokens:.2f} a million tokens"
    return (
        f"{score.value:.1f} = {score.num_services} / ({score.latency_s:.3f} s x {cards}${price.usd_per_hour:g}/h)"
        f"{missed}; latency x price {score.latency_price:.4f}{between}{cost} [dim](estimate; prompt "
        f"{score.prompt_tokens}, {escape(price.provider)}, {origin.date}, {escape(origin.source)})[/]"
    )


def _matrix(budgets: list[MemoryBudget], on: Console) -> Table:
    """Return a table of items by stages; on a wide screen with the formula of each item."""
    is_wide = on.width >= WIDE
    by_stage = {budget.stage: budget for budget in budgets}
    stages = [stage for stage in STAGES if stage in by_stage]
    rows = table(on, "", *stages, *(["how"] if is_wide else []), numbers=stages)
    names = list(dict.fromkeys(item.name for stage in reversed(stages) for item in by_stage[stage].items))
    for name in names:
        cells = [_cell(by_stage[stage], name) for stage in stages]
        rows.add_row(name, *cells, *([escape(_formula(budgets, name))] if is_wide else []))
    totals = [_total(by_stage[stage]) for stage in stages]
    rows.add_row("[bold]total[/]", *totals, *([""] if is_wide else []))
    rows.add_row("usable", *(format_gib(by_stage[stage].available_bytes) for stage in stages))
    return rows


def _cell(budget: MemoryBudget, name: str) -> str:
    found = [item.num_bytes for item in budget.items if item.name == name]
    return format_gib(sum(found)) if found else ""


def _formula(budgets: list[MemoryBudget], name: str) -> str:
    return next(item.formula for budget in reversed(budgets) for item in budget.items if item.name == name)


def _total(budget: MemoryBudget) -> str:
    text = format_gib(budget.total_bytes)
    return f"[bold green]{text}[/]" if budget.fits else f"[bold red]{text} > [/]"


def _available(budget: MemoryBudget) -> str:
    text = format_gib(budget.available_bytes)
    if budget.fits:
        return text
    return f"[yellow]{text} ![/]" if budget.is_advisory else f"[red]{text}[/]"


def _show_warnings(plan: Plan, machine: Machine, on: Console) -> None:
    short = [budget for budget in plan.budgets if budget.is_advisory and not budget.fits and budget.place == "host"]
    for budget in short:
        needed, here = format_gib(budget.total_bytes), format_gib(budget.available_bytes)
        text = f"! {budget.stage} needs {needed} of host memory: this machine, which has no GPU, has {here}."
        on.print(f"[yellow]{text} Run it where the card is.[/]")
    needed_here = [b.total_bytes for b in plan.budgets if b.place == "host" and not b.is_advisory]
    if needed_here and max(needed_here) > machine.memory_available_bytes:
        free = format_gib(machine.memory_available_bytes)
        on.print(f"[yellow]! Only {free} of memory are available right now; other processes hold the rest.[/]")

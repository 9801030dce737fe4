"""The speed of a plan and its suggested limits on the screen. Prints, decides nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape

from scalellm_trt import facts
from scalellm_trt.cli.tables import table

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console
    from rich.table import Table

    from scalellm_trt.plan import Outlook, Plan, Suggestion
    from scalellm_trt.predict.service import Speed
    from scalellm_trt.recipe import Slo


def show(plan: Plan, seen: Outlook, on: Console) -> None:
    """Print first tokens by prompt, and latency and throughput by requests at once; nothing where none is predicted."""
    speed = seen.speed
    if speed is None:
        return
    band = f"estimate ±{speed.error_band:.0%}"
    points = "fitted to published points of this card" if speed.is_calibrated else "no published point of this card"
    on.print(f"[bold]speed[/] ({band}, {points})")
    on.print(_first_tokens(plan, speed, on))
    on.print(_batches(plan, speed, on))
    on.print(
        f"While a prompt of {speed.stall_tokens:,} tokens is read in one step, every running stream waits "
        f"{speed.stall_ms:,.0f} ms for its next token."
    )
    _show_constants(plan, speed, on)


def show_suggestion(suggestion: Suggestion, recipe: Path, on: Console) -> None:
    """Print the limits that won, why, and the lines to paste."""
    on.print()
    on.print(f"[bold]suggestion[/]: {escape(suggestion.objective)}")
    pool, speed = suggestion.outlook.pool, suggestion.outlook.speed
    figures = (
        f"{pool.sequences} sequences of {suggestion.plan.limits.max_seq_len:,}, {pool.concurrency} requests at once"
    )
    if speed is not None:
        figures += (
            f", {speed.batches[-1].output_tokens_per_s:,.0f} tokens/s (estimate), {speed.stall_ms:,.0f} ms stalls"
        )
    counted = f"{suggestion.num_fitting} of {suggestion.num_tried} candidates fit and keep the threshold"
    on.print(f"{figures}; {counted}. In {escape(str(recipe))}:")
    on.print()
    on.print(suggestion.fragment(), markup=False)


def show_no_suggestion(slo: Slo, on: Console) -> None:
    """Say that no limits were found, and what would let some be."""
    set_ones = {f"slo.{name}": value for name, value in slo.model_dump().items() if value is not None}
    kept = "".join(f" and keep {name} {value:g}" for name, value in set_ones.items())
    hint = f"raise {' or '.join(set_ones)}, or take" if set_ones else "take"
    on.print()
    on.print(f"[bold]suggestion[/]: none; no limits tried fit the card{kept}: {hint} smaller weights or a larger card")


def _first_tokens(plan: Plan, speed: Speed, on: Console) -> Table:
    prompts = [f"{each.prompt:,}" for each in speed.first_token]
    rows = table(on, "prompt tokens", *prompts, numbers=prompts)
    rows.add_row("ms to the first token", *(f"{each.ttft_ms:,.0f}" for each in speed.first_token))
    if plan.services > 1:
        together = [f"{each.ttft_all_services_ms:,.0f}" for each in speed.first_token]
        rows.add_row(f"{plan.services} services at once", *together)
    return rows


def _batches(plan: Plan, speed: Speed, on: Console) -> Table:
    name = f"requests of {speed.prompt:,} + {speed.max_tokens:,}"
    sizes = [f"{each.batch}" for each in speed.batches]
    rows = table(on, name, *sizes, numbers=sizes)
    rows.add_row("ms a token", *(f"{each.itl_ms:.1f}" for each in speed.batches))
    if speed.max_tokens > 1:
        rows.add_row("with others' prompts", *(f"{each.tpot_ms or 0:.1f}" for each in speed.batches))
    rows.add_row("tokens/s of the card", *(f"{each.output_tokens_per_s:,.0f}" for each in speed.batches))
    return rows


def _show_constants(plan: Plan, speed: Speed, on: Console) -> None:
    used, hardware = speed.constants, facts.hardware()[plan.hardware]
    rates = (
        f"{used.tflops:g} TFLOPS ({used.tflops_key}) x MFU {used.mfu:g}, "
        f"{hardware.memory_bandwidth_gb_per_s:g} GB/s x MBU {used.mbu:g} ({used.width})"
    )
    borrowed = ", borrowed from another format" if used.is_borrowed else ""
    on.print(f"[dim]{escape(f'Roofline: {rates}{borrowed}. Source: {hardware.origin.source}')}[/]")

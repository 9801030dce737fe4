"""What a service's engines took when they were last served, beside what its plan says: part of `plan`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from scalellm_trt.plan import Plan


def show_measured(plan: Plan, builds: Path, on: Console) -> None:
    """Print the comparison; nothing where the service never ran, or its engines log nothing."""
    from scalellm_trt.cli.tables import table
    from scalellm_trt.memory import format_gib
    from scalellm_trt.triton import measured

    path = builds / plan.name / measured.FILE_NAME
    models = measured.read(path)
    planned = next((b for b in plan.budgets if (b.stage, b.place) == ("load", "device")), None)
    if planned is None or not models:
        return
    rows = table(on, "device memory", "planned", "measured", "difference")
    for part in measured.compare(planned, list(models.values())):
        share = part.measured_bytes / part.planned_bytes - 1 if part.planned_bytes else 0.0
        rows.add_row(part.name, format_gib(part.planned_bytes), format_gib(part.measured_bytes), f"{share:+.0%}")
    on.print()
    on.print(rows)
    pools = ", ".join(f"{name} {each.kv_cache_tokens}" for name, each in models.items() if each.kv_cache_tokens)
    if pools:
        on.print(f"KV cache in tokens, as measured: {pools}; planned for each: {plan.serving.kv_cache_tokens}")
    on.print(f"Measured by the last `scalellm-trt serve`: {path}", soft_wrap=True)

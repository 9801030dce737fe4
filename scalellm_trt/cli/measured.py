"""What a service's engines took when they were last served, beside what its plan says: part of `plan`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from rich.console import Console

    from scalellm_trt.plan import Plan
    from scalellm_trt.triton.measured import Comparison, Measured


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """What was measured.

    Attributes:
        source: the file that has it.
        models: each engine's figures.
        parts: of the device memory of all engines together, as planned and as measured.
    """

    source: str
    models: Mapping[str, Measured]
    parts: tuple[Comparison, ...]


def find(plan: Plan, builds: Path) -> Beside | None:
    """Return what was measured; None where the service never ran, or its engines log nothing."""
    from scalellm_trt.triton import measured

    path = builds / plan.name / measured.FILE_NAME
    models = measured.read(path)
    planned = next((b for b in plan.budgets if (b.stage, b.place) == ("load", "device")), None)
    if planned is None or not models:
        return None
    return Beside(source=str(path), models=models, parts=tuple(measured.compare(planned, list(models.values()))))


def show_measured(plan: Plan, builds: Path, on: Console) -> None:
    """Print the comparison; nothing where there is none."""
    from scalellm_trt.cli.tables import table
    from scalellm_trt.memory import format_gib

    found = find(plan, builds)
    if found is None:
        return
    rows = table(on, "device memory", "planned", "measured", "difference")
    for part in found.parts:
        share = part.measured_bytes / part.planned_bytes - 1 if part.planned_bytes else 0.0
        rows.add_row(part.name, format_gib(part.planned_bytes), format_gib(part.measured_bytes), f"{share:+.0%}")
    on.print()
    on.print(rows)
    pools = ", ".join(f"{name} {each.kv_cache_tokens}" for name, each in found.models.items() if each.kv_cache_tokens)
    if pools:
        on.print(f"KV cache in tokens, as measured: {pools}; planned for each: {plan.serving.kv_cache_tokens}")
    on.print(f"Measured by the last `scalellm-trt serve`: {found.source}", soft_wrap=True)

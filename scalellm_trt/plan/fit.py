"""When a plan does not fit: what it needs against what is there, and the smallest single changes that make it fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scalellm_trt import facts
from scalellm_trt.errors import Problem
from scalellm_trt.memory import format_gib

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from scalellm_trt.artefacts.manifest import StageName
    from scalellm_trt.detect import Machine
    from scalellm_trt.memory import MemoryBudget
    from scalellm_trt.plan.notes import ProblemAt
    from scalellm_trt.plan.types import Plan
    from scalellm_trt.recipe import Recipe

    TryPlan = Callable[[Recipe], Plan | None]
    """Resolves a changed recipe; None where the change contradicts something else."""

# Sizes that a user would rather lower, first; each with the item of the budget that it shrinks.
NUMERIC_KEYS = (
    ("serving", "kv_cache_tokens", "KV cache"),
    ("limits", "max_batch_size", "KV cache"),
    ("limits", "max_seq_len", "KV cache"),
    ("limits", "max_num_tokens", "activations"),
)
MAX_SUGGESTIONS = 4


def problem(recipe: Recipe, plan: Plan, machine: Machine, problem_at: ProblemAt, try_plan: TryPlan) -> Problem | None:
    """Return why the plan's memory does not fit, with the changes that help; None where it fits.

    The worst stage is shown. Every suggested change alone makes *every* stage fit.
    """
    short = [budget for budget in _memory_budgets(plan) if not budget.fits]
    if not short:
        return None
    worst = max(short, key=lambda budget: budget.total_bytes - budget.available_bytes)
    items = " + ".join(f"{item.name} {format_gib(item.num_bytes)}" for item in worst.items)
    usable = f"{format_gib(worst.available_bytes)} usable of {format_gib(machine.memory_total_bytes)}"
    message = f"does not fit: {worst.stage} takes {items} = {format_gib(worst.total_bytes)} > {usable}"
    changes = [change for change, _ in zip(suggestions(recipe, try_plan), range(MAX_SUGGESTIONS), strict=False)]
    needed = format_gib(worst.total_bytes + machine.memory_total_bytes - worst.available_bytes)
    hint = f"Try: {', or '.join(changes)}." if changes else f"No single change is enough; it takes {needed} of memory."
    return problem_at(_largest_key(recipe, worst), message, hint)


def suggestions(recipe: Recipe, try_plan: TryPlan) -> Iterator[str]:
    """Yield single changes that make every stage fit, least painful first, each with what it leaves."""
    for section, name, item in NUMERIC_KEYS:
        found = _largest_that_fits(recipe, section, name, try_plan)
        if found is not None:
            value, plan = found
            yield f"{section}.{name}: {value} ({_item_text(plan, item)})"
    for name, values, item in _format_changes(recipe):
        for smaller in values:
            plan_or_none = _fitting(_changed(recipe, "quantization", name, smaller), try_plan)
            if plan_or_none is not None:
                yield f"quantization.{name}: {smaller} ({_item_text(plan_or_none, item)})"
                break
    if recipe.services > 1:
        for services in range(recipe.services - 1, 0, -1):
            if _fitting(recipe.model_copy(update={"services": services}), try_plan) is not None:
                yield f"services: {services}"
                return


def disk_problem(plan: Plan, stage: StageName) -> Problem | None:
    """Return why a stage that is about to run has too little disk space; None where there is enough."""
    for budget in plan.budgets:
        if budget.place == "disk" and budget.stage == stage and not budget.fits:
            items = " + ".join(f"{item.name} {format_gib(item.num_bytes)}" for item in budget.items)
            return Problem(
                message=f"{stage} writes {items}; only {format_gib(budget.available_bytes)} are free on the disk",
                hint="Free some space: `scalellm-trt cache prune` removes artefacts that no recipe uses.",
            )
    return None


def _memory_budgets(plan: Plan) -> list[MemoryBudget]:
    return [budget for budget in plan.budgets if budget.place != "disk"]


def _fits(plan: Plan) -> bool:
    return all(budget.fits for budget in _memory_budgets(plan))


def _fitting(recipe: Recipe, try_plan: TryPlan) -> Plan | None:
    plan = try_plan(recipe)
    return plan if plan is not None and _fits(plan) else None


def _largest_that_fits(recipe: Recipe, section: str, name: str, try_plan: TryPlan) -> tuple[int, Plan] | None:
    """Find by bisection the largest smaller value that fits.

    Small values may contradict other limits, large ones do not fit: memory never shrinks when a limit grows.
    """
    current = getattr(getattr(recipe, section), name)
    if not isinstance(current, int):
        return None
    low, high, best = 1, current - 1, None
    while low <= high:
        middle = (low + high) // 2
        plan = try_plan(_changed(recipe, section, name, middle))
        if plan is not None and not _fits(plan):
            high = middle - 1
            continue
        low = middle + 1
        best = best if plan is None else (middle, plan)
    return best


def _format_changes(recipe: Recipe) -> Iterator[tuple[str, list[str], str]]:
    """Yield key, the formats that take fewer bits than the recipe's (widest first), and the item that shrinks."""
    rows = facts.weight_formats()
    current = rows[f"{recipe.backend}/{recipe.quantization.weights}"]
    smaller = [
        row
        for row in rows.values()
        if row.backend == recipe.backend and row.bits is not None and row.bits < (current.bits or 0)
    ]
    smaller.sort(key=lambda row: (-(row.bits or 0), row.is_calibrated))
    yield "weights", [row.weights for row in smaller], "weights"
    if recipe.quantization.kv_cache_dtype == "auto":
        yield "kv_cache_dtype", ["int8", "fp8"], "KV cache"


def _changed(recipe: Recipe, section: str, name: str, value: object) -> Recipe:
    part = getattr(recipe, section).model_copy(update={name: value})
    return recipe.model_copy(update={section: part})


def _item_text(plan: Plan, name: str) -> str:
    serve = next(budget for budget in plan.budgets if budget.stage == "serve" and budget.place != "disk")
    num_bytes = sum(item.num_bytes for item in serve.items if item.name == name)
    return f"{name} {format_gib(num_bytes)}"


def _largest_key(recipe: Recipe, budget: MemoryBudget) -> str:
    """Return the recipe key that the largest item of a budget follows from."""
    pool = "limits.max_batch_size" if recipe.serving.kv_cache_tokens is None else "serving.kv_cache_tokens"
    largest = max(budget.items, key=lambda item: item.num_bytes).name
    return {"KV cache": pool, "activations": "limits.max_num_tokens"}.get(largest, "quantization.weights")

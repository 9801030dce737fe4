"""The smallest changes to a recipe that make its plan fit, least painful first; each is tried before it is named."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scalellm_trt import facts
from scalellm_trt.memory import format_gib

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from scalellm_trt.plan.types import Plan
    from scalellm_trt.recipe import Recipe

    TryPlan = Callable[[Recipe], Plan | None]
    """Resolves a changed recipe; None where the change contradicts something else."""

# Sizes that a user would rather lower, first; each with the item of the budget that it shrinks.
NUMERIC_KEYS = (
    ("serving", "kv_cache_tokens", "KV cache"),
    ("limits", "max_batch_size", "KV cache"),
    ("limits", "max_seq_len", "KV cache"),
    ("limits", "max_input_len", "attention workspace"),
    ("limits", "max_num_tokens", "activations"),
)
TP_SIZES = (2, 4, 8)


def suggestions(recipe: Recipe, try_plan: TryPlan) -> Iterator[str]:
    """Yield the smallest changes that make every stage fit, then more cards.

    Single ones; where none is enough, a format with a size; where that is not enough either, the same for one service.
    """
    for changes in (_single_changes, _pairs, _with_one_service):
        found = False
        for change in changes(recipe, try_plan):
            found = True
            yield change
        if found:
            break
    yield from _more_cards(recipe, try_plan)


def _single_changes(recipe: Recipe, try_plan: TryPlan) -> Iterator[str]:
    """Yield single changes with what they leave: sizes, formats, fewer services."""
    yield from _numeric_changes(recipe, try_plan)
    for name, values, item in format_changes(recipe):
        for smaller in values:
            plan = fitting(changed(recipe, "quantization", name, smaller), try_plan)
            if plan is not None:
                yield f"quantization.{name}: {smaller} ({_item_text(plan, item)})"
                break
    for services in range(recipe.services - 1, 0, -1):
        if fitting(recipe.model_copy(update={"services": services}), try_plan) is not None:
            yield f"services: {services}"
            break


def _more_cards(recipe: Recipe, try_plan: TryPlan) -> Iterator[str]:
    for tp_size in TP_SIZES:
        plan = None
        if tp_size > recipe.parallel.tp_size:
            plan = fitting(changed(recipe, "parallel", "tp_size", tp_size), try_plan)
        if plan is not None:
            yield f"parallel.tp_size: {tp_size} ({_item_text(plan, 'weights')} on each of {tp_size} cards)"
            break


def fitting(recipe: Recipe, try_plan: TryPlan) -> Plan | None:
    """Return the plan of a recipe where it is allowed and fits."""
    plan = try_plan(recipe)
    return plan if plan is not None and plan.fits else None


def changed(recipe: Recipe, section: str, name: str, value: object) -> Recipe:
    """Return the recipe with one key of a section changed; nothing is checked."""
    part = getattr(recipe, section).model_copy(update={name: value})
    return recipe.model_copy(update={section: part})


def format_changes(recipe: Recipe) -> Iterator[tuple[str, list[str], str]]:
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
        yield "kv_cache_dtype", ["fp8", "int8"], "KV cache"


def _numeric_changes(recipe: Recipe, try_plan: TryPlan) -> Iterator[str]:
    for section, name, item in NUMERIC_KEYS:
        found = largest_that_fits(recipe, section, name, try_plan)
        if found is not None:
            value, plan = found
            yield f"{section}.{name}: {value} ({_item_text(plan, item)})"


def _pairs(recipe: Recipe, try_plan: TryPlan) -> Iterator[str]:
    for name, values, _ in format_changes(recipe):
        for smaller in values:
            narrower = changed(recipe, "quantization", name, smaller)
            first = next(_numeric_changes(narrower, try_plan), None)
            if first is not None:
                yield f"quantization.{name}: {smaller} with {first}"
                break


def _with_one_service(recipe: Recipe, try_plan: TryPlan) -> Iterator[str]:
    if recipe.services > 1:
        alone = recipe.model_copy(update={"services": 1})
        for change in (*_single_changes(alone, try_plan), *_pairs(alone, try_plan)):
            yield f"services: 1 with {change}"


def largest_that_fits(recipe: Recipe, section: str, name: str, try_plan: TryPlan) -> tuple[int, Plan] | None:
    """Find by bisection the largest smaller value that fits.

    Small values may contradict other limits, large ones do not fit: memory never shrinks when a limit grows.
    """
    current = getattr(getattr(recipe, section), name)
    if not isinstance(current, int):
        return None
    low, high, best = 1, current - 1, None
    while low <= high:
        middle = (low + high) // 2
        plan = try_plan(changed(recipe, section, name, middle))
        if plan is not None and not plan.fits:
            high = middle - 1
            continue
        low = middle + 1
        best = best if plan is None else (middle, plan)
    return best


def _item_text(plan: Plan, name: str) -> str:
    place = "device" if any(budget.place == "device" for budget in plan.budgets) else "host"
    serve = next(budget for budget in plan.budgets if (budget.stage, budget.place) == ("serve", place))
    return f"{name} {format_gib(serve.item_bytes(name))}"

"""When a plan does not fit: what it needs against what is there, and where the smallest changes that make it fit stand.

A budget that is only advisory (host memory of a machine on which the build will not run) refuses nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from scalellm_trt.errors import Problem, UnsupportedError
from scalellm_trt.memory import format_gib
from scalellm_trt.plan.changes import suggestions

if TYPE_CHECKING:
    from scalellm_trt.artefacts.manifest import StageName
    from scalellm_trt.detect import Machine
    from scalellm_trt.memory import MemoryBudget
    from scalellm_trt.plan.changes import TryPlan
    from scalellm_trt.plan.notes import ProblemAt
    from scalellm_trt.plan.types import Plan
    from scalellm_trt.recipe import Recipe

MAX_SUGGESTIONS = 4


class DoesNotFitError(UnsupportedError):
    """Everything is settled and allowed, but memory is short; `plan` is what would have been built."""

    def __init__(self, problem: Problem, plan: Plan) -> None:
        """Keep the plan, so that its budgets can be shown."""
        super().__init__([problem])
        self.plan = plan


def problem(recipe: Recipe, plan: Plan, machine: Machine, problem_at: ProblemAt, try_plan: TryPlan) -> Problem | None:
    """Return why the plan's memory does not fit, with the changes that help; None where it fits.

    The worst stage is shown. Every suggested change alone makes *every* stage fit.
    """
    short = [budget for budget in plan.binding_budgets if not budget.fits]
    if not short:
        return None
    worst = max(short, key=lambda budget: budget.total_bytes - budget.available_bytes)
    items = " + ".join(f"{name} {format_gib(num_bytes)}" for name, num_bytes in worst.labelled().items())
    message = f"does not fit: {worst.stage} takes {items} = {format_gib(worst.total_bytes)} > {_usable(worst, machine)}"
    changes = [change for change, _ in zip(suggestions(recipe, try_plan), range(MAX_SUGGESTIONS), strict=False)]
    reserved = 0 if worst.place == "device" else machine.memory_total_bytes - worst.available_bytes
    needed = f"{format_gib(worst.total_bytes + reserved)} of {'device ' if worst.place == 'device' else ''}memory"
    hint = f"Try: {', or '.join(changes)}." if changes else f"No single change is enough; it takes {needed}."
    return problem_at(_largest_key(recipe, worst), message, hint)


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


def _usable(budget: MemoryBudget, machine: Machine) -> str:
    available = format_gib(budget.available_bytes)
    return (
        f"{available} of the card"
        if budget.place == "device"
        else (f"{available} usable of {format_gib(machine.memory_total_bytes)}")
    )


def _largest_key(recipe: Recipe, budget: MemoryBudget) -> str:
    """Return the recipe key that the largest item of a budget follows from."""
    pool = "limits.max_batch_size" if recipe.serving.kv_cache_tokens is None else "serving.kv_cache_tokens"
    summary = budget.summary()
    largest = max(summary, key=lambda name: summary[name])
    keys = {
        "KV cache": pool,
        "activations": "limits.max_num_tokens",
        "attention workspace": "limits.max_input_len",
        "runtime buffers": "limits.max_batch_size",
        "decoder": "limits.max_batch_size",
    }
    return keys.get(largest, "quantization.weights")

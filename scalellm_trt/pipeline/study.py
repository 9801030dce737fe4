"""A recipe looked at before anything is built: its plan, also on another card or where it does not fit."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scalellm_trt import detect, facts, recipe
from scalellm_trt import plan as planning
from scalellm_trt.backends import backend_for
from scalellm_trt.errors import Problem, UnsupportedError
from scalellm_trt.pipeline.preview import known_model
from scalellm_trt.plan import DoesNotFitError

if TYPE_CHECKING:
    from pathlib import Path

    from scalellm_trt.pipeline.steps import Workspace
    from scalellm_trt.plan import Decision, Objective, Plan, Suggestion
    from scalellm_trt.recipe import LoadedRecipe, Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """A plan with what it was made from.

    Attributes:
        recipe: as it was planned: on another card, with the changes that it needs there.
        changes: what differs from the file, and why; empty for the recipe's own card.
        refusal: why the plan cannot be built although all of it is allowed: it does not fit; None where it fits.
    """

    recipe: Recipe
    plan: Plan
    changes: tuple[Decision, ...]
    refusal: DoesNotFitError | None
    suggestion: Suggestion | None


def study(
    path: Path,
    workspace: Workspace,
    *,
    hardware: str | None = None,
    objective: Objective | None = None,
    prompt: int = planning.PROMPT_TOKENS,
    max_tokens: int = planning.MAX_TOKENS,
) -> Study:
    """Plan a recipe, on `hardware` instead of its own where that is given; search the best limits for an `objective`.

    Raises:
        RecipeError: the recipe is wrong.
        UnsupportedError: what is asked for is not allowed, or no such hardware is known, be it asked for or in the
            recipe; a plan that does not fit is returned, not raised.
    """
    loaded = recipe.load(path)
    model, spec = known_model(loaded, workspace)
    machine = detect.machine(workspace.builds_dir)

    def try_plan(tried: Recipe) -> Plan | None:
        return planning.try_plan(dataclasses.replace(loaded, recipe=tried), model, spec, machine)

    changes: tuple[Decision, ...] = ()
    if hardware is not None and hardware != loaded.recipe.hardware:
        _check_hardware(hardware)
        moved, changes = planning.on_card(loaded.recipe, hardware, try_plan)
        loaded = dataclasses.replace(loaded, recipe=moved)
    refusal: DoesNotFitError | None = None
    try:
        plan = planning.make(loaded, model, spec, machine)
    except DoesNotFitError as error:
        plan, refusal = error.plan, error
    _check_backend(loaded, plan, workspace)
    suggestion = None
    if objective is not None:
        suggestion = planning.suggest(
            loaded.recipe, try_plan, objective=objective, prompt=prompt, max_tokens=max_tokens
        )
    return Study(recipe=loaded.recipe, plan=plan, changes=changes, refusal=refusal, suggestion=suggestion)


def _check_hardware(hardware: str) -> None:
    known = facts.hardware()
    if hardware not in known:
        nearest = facts.nearest(hardware, known)
        hint = f"Allowed: {', '.join(known)}." + ("" if nearest is None else f" Nearest: {nearest}.")
        problem = Problem(key="--hardware", message=f"{hardware!r} is not a known class of hardware", hint=hint)
        raise UnsupportedError([problem])


def _check_backend(loaded: LoadedRecipe, plan: Plan, workspace: Workspace) -> None:
    if problems := backend_for(plan.backend, workspace.site(loaded)).check(plan):
        raise UnsupportedError([loaded.problem(p.key, p.message, p.hint) if p.key else p for p in problems])

"""Decide everything that a recipe left open, and refuse what cannot be built or does not fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from scalellm_trt import memory
from scalellm_trt.errors import UnsupportedError
from scalellm_trt.plan import card, fit, placement
from scalellm_trt.plan.formats import resolve_formats
from scalellm_trt.plan.limits import resolve_limits, resolve_serving
from scalellm_trt.plan.notes import Notes
from scalellm_trt.plan.pool import fill_card
from scalellm_trt.plan.types import Plan

if TYPE_CHECKING:
    from scalellm_trt.artefacts.types import LocalModel
    from scalellm_trt.detect import Machine
    from scalellm_trt.errors import Problem
    from scalellm_trt.model_spec import ModelSpec
    from scalellm_trt.plan.rows import Rows
    from scalellm_trt.plan.types import QuantizationPlan
    from scalellm_trt.recipe import Recipe


class LoadedRecipe(Protocol):
    """A recipe that knows in which file and line each of its keys stands."""

    @property
    def recipe(self) -> Recipe:
        """The checked values."""
        ...

    def problem(self, key: str, message: str, hint: str | None = None, /) -> Problem:
        """Return a problem at the place of a dotted key."""
        ...


def make(loaded: LoadedRecipe, model: LocalModel, spec: ModelSpec, machine: Machine) -> Plan:
    """Return the plan of a recipe for a model on a machine.

    Disk space is in the budgets but refuses nothing here: a stage that is already built needs none
    (`disk_problem` says it for a stage that is about to run).

    Raises:
        UnsupportedError: with every problem: unknown hardware or toolchain, formats or limits that the backend or
            the model does not take; each with its place in the recipe.
        DoesNotFitError: the plan does not fit; it holds the plan.
    """
    notes = Notes(problem_at=loaded.problem)
    plan = resolve(loaded.recipe, model, spec, machine, notes)
    if plan is None or notes.problems:
        raise UnsupportedError(notes.problems)

    def try_recipe(recipe: Recipe) -> Plan | None:
        tried = Notes(problem_at=loaded.problem)
        result = resolve(recipe, model, spec, machine, tried)
        return None if tried.problems else result

    problem = fit.problem(loaded.recipe, plan, machine, notes.problem_at, try_recipe)
    if problem is not None:
        raise fit.DoesNotFitError(problem, plan)
    return plan


def try_plan(loaded: LoadedRecipe, model: LocalModel, spec: ModelSpec, machine: Machine) -> Plan | None:
    """Return the plan of a recipe whether it fits or not; None where something of it is not allowed."""
    notes = Notes(problem_at=loaded.problem)
    plan = resolve(loaded.recipe, model, spec, machine, notes)
    return None if notes.problems else plan


def resolve(recipe: Recipe, model: LocalModel, spec: ModelSpec, machine: Machine, notes: Notes) -> Plan | None:
    """Resolve a recipe without asking whether it fits; None, with the reasons in `notes`, where rows are missing."""
    formats = resolve_formats(recipe, spec, notes)
    limits = resolve_limits(recipe, spec, notes)
    if formats is None:
        return None
    rows, quantization = formats
    placement.check(recipe, spec, rows, notes)
    serving = resolve_serving(recipe, spec, rows, notes)
    card.say(recipe, spec, rows, notes)
    if notes.problems:
        return None
    inputs = memory.MemoryInputs(
        spec=spec,
        dtype=recipe.model.dtype,
        weights=rows.weights,
        group_size=quantization.group_size,
        kv=rows.kv,
        kv_cache_tokens=serving.kv_cache_tokens,
        calibration_tokens=_calibration_tokens(quantization),
        calibration_sample_tokens=0 if quantization.calibration is None else quantization.calibration.max_seq_len,
        max_batch_size=limits.max_batch_size,
        max_input_len=limits.max_input_len,
        max_seq_len=limits.max_seq_len,
        max_num_tokens=limits.max_num_tokens,
        tp_size=recipe.parallel.tp_size,
        pp_size=recipe.parallel.pp_size,
        services=recipe.services,
        hardware=rows.hardware,
        toolchain=rows.toolchain,
        machine=machine,
    )
    if rows.hardware.kind == "gpu" and recipe.serving.kv_cache_tokens is None:
        inputs, serving = fill_card(inputs, serving, notes)
    _note_step_time(recipe, spec, rows, machine, notes)
    return Plan(
        name=recipe.name,
        model=model,
        spec=spec,
        dtype=recipe.model.dtype,
        hardware=rows.hardware.name,
        backend=recipe.backend,
        toolchain=rows.toolchain.name,
        quantization=quantization,
        limits=limits,
        serving=serving,
        tp_size=recipe.parallel.tp_size,
        pp_size=recipe.parallel.pp_size,
        services=recipe.services,
        budgets=memory.budgets(inputs),
        decisions=tuple(notes.decisions),
    )


def _calibration_tokens(quantization: QuantizationPlan) -> int:
    calibration = quantization.calibration
    return 0 if calibration is None else calibration.num_samples * calibration.max_seq_len


def _note_step_time(recipe: Recipe, spec: ModelSpec, rows: Rows, machine: Machine, notes: Notes) -> None:
    """Say how long a full prefill step keeps the other streams waiting: nothing else runs meanwhile.

    Formula: 2 * matrix weights * max_num_tokens / (cores * flops per core); attention is left out.
    """
    if rows.toolchain.host is None:
        return
    tokens = min(recipe.limits.max_num_tokens, recipe.limits.max_batch_size * recipe.limits.max_seq_len)
    flops = 2 * spec.num_linear_parameters * tokens
    seconds = flops / (machine.num_usable_cores * rows.toolchain.host.prefill_flops_per_core)
    reason = f"a prefill step of {tokens} tokens stalls every running stream for about {seconds:.1f} s here (estimate"
    smaller = "a smaller chunk stalls shorter and costs a little throughput"
    notes.decide("limits.max_num_tokens", recipe.limits.max_num_tokens, f"{reason}); {smaller}")

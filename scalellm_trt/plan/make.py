"""Decide everything that a recipe left open, and refuse what cannot be built or does not fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from scalellm_trt.artefacts.types import LocalModel
    from scalellm_trt.detect import Machine
    from scalellm_trt.errors import Problem
    from scalellm_trt.model_spec import ModelSpec
    from scalellm_trt.plan.types import Plan
    from scalellm_trt.recipe import Recipe


class LoadedRecipe(Protocol):
    """A recipe that knows in which file and line each of its keys stands."""

    @property
    def recipe(self) -> Recipe:
        """The checked values."""
        ...

    def problem(self, key: str, message: str, hint: str | None = None) -> Problem:
        """Return a problem at the place of a dotted key."""
        ...


def make(loaded: LoadedRecipe, model: LocalModel, spec: ModelSpec, machine: Machine) -> Plan:
    """Return the plan of a recipe for a model on a machine.

    Raises:
        UnsupportedError: with every problem: unknown hardware or toolchain, formats or limits that the backend or
            the model does not take, or a plan that does not fit; each with its place in the recipe.
    """
    raise NotImplementedError

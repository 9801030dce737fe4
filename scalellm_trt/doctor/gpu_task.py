"""What a GPU machine is wanted for: a recipe, or a class of cards with a toolchain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from scalellm_trt import facts
from scalellm_trt.doctor.checks import Point
from scalellm_trt.errors import Problem, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from scalellm_trt.detect import Gpu
    from scalellm_trt.facts import GpuToolchain, Hardware, Toolchain
    from scalellm_trt.memory.types import Place
    from scalellm_trt.plan import Plan
    from scalellm_trt.recipe import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuTask:
    """What is wanted.

    Attributes:
        gpu: the part of `toolchain` that lives in an image.
        arguments: of the doctor's command line, to repeat it.
        world_size: cards that one copy of the model takes.
        model_source: of the recipe; None without one.
        plan: None where there is no recipe, or nothing can be planned.
        plan_problem: why it cannot be planned, or why the plan does not fit.
    """

    hardware: Hardware
    toolchain: Toolchain
    gpu: GpuToolchain
    arguments: str
    world_size: int = 1
    model_source: str | None = None
    plan: Plan | None = None
    plan_problem: str | None = None

    def point(self, name: str, needed: str) -> Point:
        """Return a point that stops this task's backend where it fails."""
        return Point(name=name, needed=needed, backend=self.toolchain.backend)

    @property
    def unknown_need(self) -> str:
        """Say how what is needed can be known where there is no plan."""
        if self.model_source is None:
            return "give a recipe to know"
        if self.plan_problem is None:
            return f"known after `scalellm-trt build {self.arguments} --until plan`"
        return "known once the recipe can be planned"

    def needed_bytes(self, place: Place) -> int | None:
        """Return what the greediest stage needs in a place, on the disk what all leave there; None: nobody knows."""
        budgets = () if self.plan is None else self.plan.budgets
        needed = [budget.total_bytes for budget in budgets if budget.place == place]
        if not needed:
            return None
        return sum(needed) if place == "disk" else max(needed)


def for_recipe(path: Path, recipe: Recipe, plan: Plan | None, problem: str | None) -> GpuTask | None:
    """Return the task of a recipe; None where its hardware or toolchain is no GPU's, or not known."""
    hardware = facts.hardware().get(recipe.hardware)
    named = None if recipe.toolchain is None else facts.toolchains().get(recipe.toolchain)
    toolchain = named or facts.default_toolchain(recipe.backend)
    if hardware is None or hardware.kind != "gpu" or toolchain is None or toolchain.gpu is None:
        return None
    return GpuTask(
        hardware=hardware,
        toolchain=toolchain,
        gpu=toolchain.gpu,
        arguments=str(path),
        world_size=recipe.parallel.tp_size * recipe.parallel.pp_size,
        model_source=recipe.model.source,
        plan=plan,
        plan_problem=problem,
    )


def for_hardware(hardware_name: str, toolchain_name: str | None) -> GpuTask:
    """Return the task of a class of cards, by default with the newest toolchain that builds engines for it.

    Raises:
        UnsupportedError: there is no such row, or none of a GPU.
    """
    hardware = facts.hardware().get(hardware_name)
    if hardware is None or hardware.kind != "gpu":
        known = [row.name for row in facts.hardware().values() if row.kind == "gpu"]
        raise _unknown("--hardware", hardware_name, known)
    rows = [row for row in facts.toolchains().values() if row.gpu is not None]
    if toolchain_name is not None:
        toolchain = next((row for row in rows if row.name == toolchain_name), None)
    else:
        toolchain = next((row for row in rows if _takes(row, hardware)), None)
    if toolchain is None or toolchain.gpu is None:
        raise _unknown("--toolchain", toolchain_name or f"for {hardware_name}", [row.name for row in rows])
    suffix = "" if toolchain_name is None else f" --toolchain {toolchain_name}"
    return GpuTask(
        hardware=hardware, toolchain=toolchain, gpu=toolchain.gpu, arguments=f"--hardware {hardware_name}{suffix}"
    )


def for_card(gpu: Gpu) -> GpuTask | None:
    """Return the task of a card that is here; None for one that no row knows."""
    hardware = facts.hardware_of(gpu.name)
    return None if hardware is None else for_hardware(hardware.name, None)


def _takes(toolchain: Toolchain, hardware: Hardware) -> bool:
    """Tell whether a toolchain builds anything for a card: unquantized weights are what every card takes."""
    if toolchain.backend not in hardware.backends:
        return False
    plain = facts.combination(toolchain.backend, toolchain.name, "full_prec", "float16", hardware.compute_capability)
    return plain.is_allowed


def _unknown(key: str, found: str, known: Sequence[str]) -> UnsupportedError:
    nearest = facts.nearest(found, known)
    hint = f"Known: {', '.join(known)}." + (f" Nearest: {nearest}." if nearest else "")
    return UnsupportedError([Problem(key=key, message=f"{found!r} is not known", hint=hint)])

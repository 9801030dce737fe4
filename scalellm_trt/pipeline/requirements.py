"""Before any work: can the stages of a build run here? If not, say what is missing and what would do it."""

from __future__ import annotations

import dataclasses
import shlex
import shutil
from typing import TYPE_CHECKING

from scalellm_trt import facts
from scalellm_trt.backends import backend_for
from scalellm_trt.backends.base import Needs
from scalellm_trt.backends.trtllm_build import PROGRAM
from scalellm_trt.errors import Problem, RecipeError, ToolchainError
from scalellm_trt.pipeline.dry_run import stage_commands
from scalellm_trt.pipeline.preview import UnknownModelError, explain, preview
from scalellm_trt.pipeline.steps import STEPS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from scalellm_trt.artefacts.manifest import StageName
    from scalellm_trt.pipeline.steps import Step, Workspace
    from scalellm_trt.plan import Plan
    from scalellm_trt.recipe import LoadedRecipe

STAGES: tuple[StageName, ...] = ("quantize", "compile", "assemble")


def require(
    loaded: LoadedRecipe,
    workspace: Workspace,
    *,
    until: Step,
    force: frozenset[Step],
    progress: Callable[[str, float], None],
) -> None:
    """Return if every stage of the build can run; what is finished already needs nothing.

    Raises:
        RecipeError, UnsupportedError: as planning does; a container was asked for and the toolchain has no image.
        ToolchainError: something is missing; with the commands that would do the work.
    """
    toolchain = _toolchain(loaded)
    if toolchain is None or toolchain.gpu is None:
        if workspace.container is not None:
            message = f"{loaded.recipe.backend} has no container image: it runs in the Python at hand"
            raise RecipeError([Problem(key="--container", message=message, hint="Leave the option out.")])
        return
    plan, stages = _stages_to_run(loaded, workspace, until, force)
    backend = backend_for(loaded.recipe.backend, workspace.site(loaded))
    quantization = loaded.recipe.quantization
    needs = Needs(
        toolchain=toolchain.name,
        hardware=loaded.recipe.hardware,
        weights=quantization.weights,
        is_calibrated=plan is not None and plan.quantization.calibration is not None,
    )
    for stage in stages:
        if wrong := backend.missing(needs, stage, progress):
            message = f"{stage}: {toolchain.name} cannot be used here: {'; '.join(wrong)}"
            raise ToolchainError(message, hint=_way_out(loaded, workspace, plan, stage))


def build_command(path: Path, plan: Plan) -> list[str]:
    """Return the argv that builds a recipe from here: in the toolchain's image where no compiler is installed."""
    command = ["scalellm-trt", "build", str(path)]
    compiles_engines = facts.toolchains()[plan.toolchain].engine_kind == "trt_engine"
    return [*command, "--container"] if compiles_engines and shutil.which(PROGRAM) is None else command


def _stages_to_run(
    loaded: LoadedRecipe, workspace: Workspace, until: Step, force: frozenset[Step]
) -> tuple[Plan | None, list[StageName]]:
    """Return the plan, and the stages that would run; all of them for a model of which nothing is known yet."""
    try:
        plan = explain(loaded.path, workspace)
    except UnknownModelError:
        return None, [stage for stage in STAGES if STEPS.index(stage) <= STEPS.index(until)]
    steps = preview(loaded.path, workspace=workspace, until=until, force=force)
    return plan, [step for step, reasons in steps if reasons and step != "plan"]


def _way_out(loaded: LoadedRecipe, workspace: Workspace, plan: Plan | None, stage: StageName) -> str:
    """Name the command that does it in the image, and what would have run."""
    lines = []
    if plan is not None:
        contained = dataclasses.replace(workspace, container=workspace.container or "docker")
        here = stage_commands(loaded, plan, dataclasses.replace(workspace, container=None), stage)
        inside = stage_commands(loaded, plan, contained, stage)
        if inside != here and workspace.container is None:
            lines.append(f"In its image: scalellm-trt build {shlex.quote(str(loaded.path))} --container")
            lines += [f"That runs: {shlex.join(argv)}" for argv in inside]
        elif inside:
            lines += [f"It would have run: {shlex.join(argv)}" for argv in inside]
    elif workspace.container is None and stage == "compile":
        lines.append(f"In its image: scalellm-trt build {shlex.quote(str(loaded.path))} --container")
    return "\n  ".join([*lines, "What this machine has: scalellm-trt doctor"])


def _toolchain(loaded: LoadedRecipe) -> facts.Toolchain | None:
    named = loaded.recipe.toolchain
    return facts.default_toolchain(loaded.recipe.backend) if named is None else facts.toolchains().get(named)

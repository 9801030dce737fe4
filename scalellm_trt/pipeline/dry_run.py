"""A build that changes nothing: each step with its reasons, the argv of its programs, the texts it would publish."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scalellm_trt import recipe
from scalellm_trt.artefacts.stage_cache import StageCache
from scalellm_trt.backends import backend_for
from scalellm_trt.pipeline import gate
from scalellm_trt.pipeline.prepare import stage_inputs
from scalellm_trt.pipeline.preview import UPSTREAM, explain, preview
from scalellm_trt.pipeline.steps import StepPreview
from scalellm_trt.triton import planned_files

if TYPE_CHECKING:
    from pathlib import Path

    from scalellm_trt.artefacts.manifest import Scalar, StageName
    from scalellm_trt.pipeline.steps import Step, Workspace
    from scalellm_trt.plan import Plan
    from scalellm_trt.recipe import LoadedRecipe

# Stands for a cache key that is known only once the artefact before it is there.
UNKNOWN_KEY = "KEY"


def dry_run(
    path: Path, *, workspace: Workspace, until: Step, force: frozenset[Step], smoke: bool = True
) -> list[StepPreview]:
    """Return what a build would do; nothing is written, downloaded or started but short questions to the machine.

    With `smoke`, what is published is served and asked before: `assemble` has the argv of that server.

    Raises:
        RecipeError, UnsupportedError: as for a build.
    """
    loaded = recipe.load(path)
    plan = explain(path, workspace)
    previews = []
    for step, reasons in preview(path, workspace=workspace, until=until, force=force):
        commands = [] if step == "plan" else stage_commands(loaded, plan, workspace, step)
        if step == "assemble" and smoke and (served := _gate_command(loaded, plan, workspace)):
            commands.append(served)
        previews.append(
            StepPreview(
                step=step,
                reasons=tuple(reasons),
                commands=tuple(tuple(argv) for argv in commands),
                files=_files(loaded, plan, workspace) if step == "assemble" else {},
            )
        )
    return previews


def stage_commands(loaded: LoadedRecipe, plan: Plan, workspace: Workspace, stage: StageName) -> list[list[str]]:
    """Return the argv of every program that a stage would start, with the directories that it would get."""
    backend = backend_for(plan.backend, workspace.site(loaded))
    cache = StageCache(workspace.builds_dir)
    directories: dict[StageName, tuple[Path, Path]] = {}
    source: Path = plan.model.directory
    upstream: str | None = plan.model.digest or None
    for name, link in UPSTREAM.items():
        inputs: dict[str, Scalar] = stage_inputs(plan, backend, name)
        if name != "quantize" and upstream is not None:
            inputs[link] = upstream
        done = cache.directory(name, inputs) if upstream is not None else cache.root / name / UNKNOWN_KEY
        directories[name] = (source, done.with_name(f"{done.name}.partial"))
        if name == "assemble":
            break
        _, found = cache.look(plan.name, name, inputs) if upstream is not None else ([], None)
        source, upstream = done, None if found is None else found.digest
    return backend.commands(plan, stage, *directories[stage])


def _gate_command(loaded: LoadedRecipe, plan: Plan, workspace: Workspace) -> list[str]:
    models = backend_for(plan.backend, workspace.site(loaded)).planned_models(plan, None)
    return gate.command(plan, models, workspace) if gate.is_needed(plan) else []


def _files(loaded: LoadedRecipe, plan: Plan, workspace: Workspace) -> dict[str, str | None]:
    backend = backend_for(plan.backend, workspace.site(loaded))
    compiled = StageCache(workspace.builds_dir).current(plan.name, "compile")
    return planned_files.texts(backend.planned_models(plan, compiled), workspace.repository_dir.resolve())

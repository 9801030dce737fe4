"""What every step of a build and its preview begin with: the model, the plan, and what a stage depends on."""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from scalellm_trt import detect, model_source, model_spec
from scalellm_trt import plan as planning
from scalellm_trt.artefacts import digest, manifest
from scalellm_trt.backends import backend_for
from scalellm_trt.errors import RecipeError, UnsupportedError
from scalellm_trt.recipe.rules import unused_keys
from scalellm_trt.triton import repository

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from scalellm_trt.artefacts.manifest import Scalar, StageName
    from scalellm_trt.artefacts.types import LocalModel
    from scalellm_trt.backends.base import Backend
    from scalellm_trt.errors import Problem
    from scalellm_trt.pipeline.steps import Workspace
    from scalellm_trt.plan import Plan
    from scalellm_trt.recipe import LoadedRecipe

PACKAGE_DIR = Path(__file__).parent.parent
# A stage's result also depends on our own code: an upgrade must not keep what an older rule wrote.
STAGE_SOURCES: Mapping[StageName, tuple[str, ...]] = {
    "quantize": ("checkpoint", "model_spec.py"),
    "compile": ("backends", "checkpoint", "model_spec.py"),
    "assemble": ("backends", "runtime", "triton"),
}


def reasons_to_publish(workspace: Workspace, name: str, inputs: Mapping[str, Scalar], *, force: bool) -> list[str]:
    """Say why a service must be published again; nothing when what is published is what `inputs` make."""
    if force:
        return ["forced"]
    if repository.is_current(workspace.repository_dir, name, digest.of_value(dict(inputs))):
        return []
    if not any(record.name == name for record in repository.list_services(workspace.repository_dir)):
        return ["not published yet"]
    path = published_inputs_path(workspace, name)
    before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return manifest.changed_inputs(before, inputs) or ["its files in the repository were changed"]


def published_inputs_path(workspace: Workspace, name: str) -> Path:
    """Return the note of what a service was published from; it only explains, `is_current` decides."""
    return workspace.builds_dir / name / "published.json"


def fetch(loaded: LoadedRecipe, workspace: Workspace, progress: Callable[[str, float], None]) -> LocalModel:
    """Bring the recipe's model to this disk, or find it there."""
    model = loaded.recipe.model
    with placed(loaded):
        return model_source.resolve(
            model.source, model.sha256, workspace.model_cache_dir, progress, base_dir=loaded.path.parent
        )


@contextmanager
def placed(loaded: LoadedRecipe) -> Iterator[None]:
    """Give problems that name a key of the recipe the file and line in which the key stands."""
    try:
        yield
    except RecipeError as error:
        raise RecipeError([_placed(loaded, problem) for problem in error.problems]) from error


def _placed(loaded: LoadedRecipe, problem: Problem) -> Problem:
    if problem.key is None or problem.file is not None:
        return problem
    return loaded.problem(problem.key, problem.message, problem.hint)


def require_texts(loaded: LoadedRecipe) -> None:
    """Return if the files that a format is calibrated with are there: before a model is fetched and planned for them.

    Raises:
        RecipeError: there is no such file or directory.
    """
    from scalellm_trt.checkpoint.calibration import text_files

    if ("quantization", "calibration") in unused_keys(loaded.recipe):
        return
    with placed(loaded):
        text_files(loaded.recipe.quantization.calibration.source)


def make_plan(loaded: LoadedRecipe, model: LocalModel, workspace: Workspace) -> Plan:
    """Decide everything that `loaded` leaves open, for the machine at hand, and let the backend object.

    Raises:
        UnsupportedError: with every reason why it cannot work.
    """
    plan = planning.make(loaded, model, model_spec.read(model.directory), detect.machine())
    if problems := backend_for(plan.backend, workspace.site(loaded)).check(plan):
        raise UnsupportedError(problems)
    return plan


def stage_inputs(plan: Plan, backend: Backend, stage: StageName) -> dict[str, Scalar]:
    """Return all that a stage's result depends on, besides the artefact before it."""
    code = digest.of_sources([PACKAGE_DIR / name for name in STAGE_SOURCES[stage]], PACKAGE_DIR)
    return {**planning.stage_inputs(plan, stage), **backend.stage_inputs(plan, stage), "scalellm_trt": code}

"""What a build would do, without doing it: the plan of a recipe, its problems, and the stages that would run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scalellm_trt import detect, facts, model_source, model_spec, recipe
from scalellm_trt import plan as planning
from scalellm_trt.artefacts.stage_cache import StageCache
from scalellm_trt.artefacts.types import LocalModel
from scalellm_trt.backends import backend_for
from scalellm_trt.errors import Problem, UnsupportedError
from scalellm_trt.pipeline.prepare import placed, reasons_to_publish, require_texts, stage_inputs
from scalellm_trt.pipeline.steps import STEPS, Step, Workspace

if TYPE_CHECKING:
    from pathlib import Path

    from scalellm_trt.artefacts.manifest import Manifest, Scalar, StageName
    from scalellm_trt.model_spec import ModelSpec
    from scalellm_trt.plan import Plan
    from scalellm_trt.recipe import LoadedRecipe


# What each stage is made from, besides its own inputs.
UPSTREAM: dict[StageName, str] = {"quantize": "model", "compile": "checkpoint", "assemble": "engine"}


class UnknownModelError(UnsupportedError):
    """Nothing can be said about a model before it was fetched."""


def explain(path: Path, workspace: Workspace) -> Plan:
    """Plan a recipe without downloading anything: from the model on this disk, else from the models we know.

    A plan of a model that is not here has no digest of its contents: `plan.model.digest` is empty.

    Raises:
        RecipeError, UnsupportedError: as for a build; UnknownModelError when nothing is known of the model.
    """
    return _explain(recipe.load(path), workspace)


def _explain(loaded: LoadedRecipe, workspace: Workspace) -> Plan:
    require_texts(loaded)
    model, spec = known_model(loaded, workspace)
    plan = planning.make(loaded, model, spec, detect.machine())
    if problems := backend_for(plan.backend, workspace.site(loaded)).check(plan):
        raise UnsupportedError(problems)
    return plan


def check(path: Path, workspace: Workspace) -> list[Problem]:
    """Return every problem of what a recipe asks for on this machine; nothing for a model that is not known yet.

    Raises:
        RecipeError: the recipe itself is wrong.
    """
    loaded = recipe.load(path)
    try:
        _explain(loaded, workspace)
    except UnknownModelError:
        return []
    except UnsupportedError as error:
        return list(error.problems)
    return []


def preview(path: Path, *, workspace: Workspace, until: Step, force: frozenset[Step]) -> list[tuple[Step, list[str]]]:
    """Return the steps of a build with the reasons why each would run; none means that it would not.

    Raises:
        RecipeError, UnsupportedError: as for a build.
    """
    loaded = recipe.load(path)
    plan = _explain(loaded, workspace)
    backend = backend_for(plan.backend, workspace.site(loaded))
    cache = StageCache(workspace.builds_dir)
    upstream: Manifest | None = None
    found: list[tuple[Step, list[str]]] = [("plan", [] if plan.model.digest else ["the model is not on this disk yet"])]
    changed = found[0][1]
    for stage, link in UPSTREAM.items():
        with placed(loaded):
            inputs: dict[str, Scalar] = stage_inputs(plan, backend, stage)
        if upstream is not None:
            inputs[link] = upstream.digest
        if changed:
            reasons = [f"the {link} would change"]
        elif stage == "assemble":
            reasons = reasons_to_publish(workspace, plan.name, inputs, force="assemble" in force)
        else:
            reasons, upstream = cache.look(plan.name, stage, inputs, force=stage in force)
        changed = reasons
        found.append((stage, reasons))
    return found[: STEPS.index(until) + 1]


def known_model(loaded: LoadedRecipe, workspace: Workspace) -> tuple[LocalModel, ModelSpec]:
    """Return the model from this disk, else its shape from the models that are known without a download.

    Raises:
        UnknownModelError: nothing is known of it.
    """
    model = loaded.recipe.model
    with placed(loaded):
        here = model_source.find(model.source, model.sha256, workspace.model_cache_dir, base_dir=loaded.path.parent)
    if here is not None:
        return here, model_spec.read(here.directory)
    for row in facts.models().values():
        if model.source in row.sources:
            unknown = LocalModel(
                directory=workspace.model_cache_dir, source=model.source, revision=model.sha256 or "", digest=""
            )
            return unknown, model_spec.from_hf_config(row.config)
    message = f"{model.source} is not on this disk and not among the models that are known without a download"
    hint = "Fetch it first: `scalellm-trt build RECIPE --until plan`."
    raise UnknownModelError([loaded.problem("model.source", message, hint)])

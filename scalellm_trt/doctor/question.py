"""What the doctor was asked: a recipe, a class of cards, or nothing in particular, which means what is here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from scalellm_trt import pipeline
from scalellm_trt import recipe as recipes
from scalellm_trt.detect import nvidia
from scalellm_trt.doctor import gpu_task
from scalellm_trt.errors import Problem, RecipeError, ScaleLLMError, UnsupportedError
from scalellm_trt.pipeline.preview import UnknownModelError
from scalellm_trt.plan import DoesNotFitError

if TYPE_CHECKING:
    from pathlib import Path

    from scalellm_trt.doctor.gpu_task import GpuTask
    from scalellm_trt.pipeline import Workspace
    from scalellm_trt.recipe import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is to be judged.

    Attributes:
        recipe: judge its backend alone.
        task: judge a GPU toolchain.
        has_host: judge the toolchains of the host too.
    """

    recipe: Recipe | None
    task: GpuTask | None
    has_host: bool


def about(path: Path | None, hardware: str | None, toolchain: str | None, workspace: Workspace) -> Question:
    """Turn the command line's words into a question.

    Raises:
        RecipeError: the recipe is wrong, or the words contradict each other.
        UnsupportedError: there is no such hardware or toolchain, also where the recipe names it.
    """
    if path is not None and (hardware or toolchain):
        option = "--hardware" if hardware else "--toolchain"
        hint = "Give a recipe, or --hardware and --toolchain."
        raise RecipeError([Problem(key=option, message="is what the recipe says already", hint=hint)])
    if toolchain is not None and hardware is None:
        raise RecipeError([Problem(key="--toolchain", message="has no card to run on", hint="Give --hardware too.")])
    if path is not None:
        recipe = recipes.load(path).recipe
        return Question(recipe=recipe, task=_task(path, recipe, workspace), has_host=False)
    if hardware is not None:
        return Question(recipe=None, task=gpu_task.for_hardware(hardware, toolchain), has_host=False)
    cards = nvidia.look().gpus
    return Question(recipe=None, task=gpu_task.for_card(cards[0]) if cards else None, has_host=True)


def _task(path: Path, recipe: Recipe, workspace: Workspace) -> GpuTask | None:
    try:
        return gpu_task.for_recipe(path, recipe, pipeline.explain(path, workspace), None)
    except UnknownModelError:
        return gpu_task.for_recipe(path, recipe, None, None)
    except DoesNotFitError as error:
        return gpu_task.for_recipe(path, recipe, error.plan, str(error).splitlines()[0])
    except ScaleLLMError as error:
        task = gpu_task.for_recipe(path, recipe, None, str(error).splitlines()[0])
        # Without a card to judge there is nothing to say but this: `hardware` or `backend` is wrong.
        if task is None and isinstance(error, UnsupportedError):
            raise
        return task

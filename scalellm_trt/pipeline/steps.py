"""The words of a build: its workspace, its steps, what they report and to whom."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, get_args

from scalellm_trt.backends.site import Site
from scalellm_trt.errors import Problem, RecipeError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scalellm_trt.backends.container import EngineName
    from scalellm_trt.recipe import LoadedRecipe

Step = Literal["plan", "quantize", "compile", "assemble"]
STEPS: tuple[Step, ...] = get_args(Step)


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """Where a build reads and writes.

    Attributes:
        builds_dir: artefacts, cache and logs.
        repository_dir: what tritonserver is pointed at.
        container: the engine that stages with an image run in; None runs every stage here.
    """

    builds_dir: Path = Path("builds")
    repository_dir: Path = Path("triton_repo")
    container: EngineName | None = None

    @property
    def model_cache_dir(self) -> Path:
        """Downloaded and imported models."""
        return self.builds_dir / ".cache" / "models"

    @property
    def repository_state_dir(self) -> Path:
        """Staging, previous versions and journal of the repository: never inside what tritonserver reads."""
        return self.builds_dir / ".cache" / "repository"

    def site(self, loaded: LoadedRecipe) -> Site:
        """Return where the stages of a recipe run."""
        return Site(
            recipe=loaded.path,
            cache_dir=self.builds_dir / ".cache",
            logs_dir=self.builds_dir / loaded.recipe.name / "logs",
            container=self.container,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """What became of one step. `reasons` say why it ran; none means that it had nothing to do."""

    step: Step
    ran: bool
    reasons: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildReport:
    """What a build did, step by step."""

    name: str
    steps: tuple[StepReport, ...]

    @property
    def num_stages_run(self) -> int:
        """Stages that did work; planning always happens and does not count."""
        return sum(step.ran for step in self.steps if step.step != "plan")


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPreview:
    """What a step would do.

    Attributes:
        reasons: why it would run; none means that it would not.
        commands: the argv of every program that it starts; none for a step that runs in this process.
        files: path below the repository → text that would be written there; None for what is linked from the engine.
    """

    step: Step
    reasons: tuple[str, ...]
    commands: tuple[tuple[str, ...], ...] = ()
    files: Mapping[str, str | None] = field(default_factory=dict)


class Reporter(Protocol):
    """Who is told how a build goes on."""

    def started(self, step: Step) -> None:
        """A step begins."""
        ...

    def progress(self, activity: str, share: float) -> None:
        """The step in progress is at `share` (0..1), doing `activity`."""
        ...

    def finished(self, report: StepReport) -> None:
        """The step in progress is done."""
        ...


def parse_step(text: str, option: str) -> Step:
    """Return the step that a command line names.

    Raises:
        RecipeError: there is no such step; `option` is named in the message.
    """
    for step in STEPS:
        if text == step:
            return step
    problem = Problem(key=option, message=f"{text!r} is not a step", hint=f"Allowed: {', '.join(STEPS)}.")
    raise RecipeError([problem])

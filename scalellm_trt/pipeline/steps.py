"""The words of a build: its workspace, its steps, what they report and to whom."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, get_args

from scalellm_trt.errors import Problem, RecipeError

Step = Literal["plan", "quantize", "compile", "assemble"]
STEPS: tuple[Step, ...] = get_args(Step)


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """Where a build reads and writes.

    Attributes:
        builds_dir: artefacts, cache and logs.
        repository_dir: what tritonserver is pointed at.
    """

    builds_dir: Path = Path("builds")
    repository_dir: Path = Path("triton_repo")

    @property
    def model_cache_dir(self) -> Path:
        """Downloaded and imported models."""
        return self.builds_dir / ".cache" / "models"

    @property
    def repository_state_dir(self) -> Path:
        """Staging, previous versions and journal of the repository: never inside what tritonserver reads."""
        return self.builds_dir / ".cache" / "repository"


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

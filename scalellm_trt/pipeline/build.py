"""plan → quantize → compile → assemble: a recipe in, a published service out; what is unchanged is not done again."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, get_args

from scalellm_trt import detect, model_source, model_spec, recipe
from scalellm_trt import plan as planning
from scalellm_trt.artefacts import digest, manifest
from scalellm_trt.artefacts.stage_cache import StageCache, StageResult
from scalellm_trt.artefacts.types import Checkpoint, Engine, LocalModel
from scalellm_trt.backends import backend_for
from scalellm_trt.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from scalellm_trt.artefacts.manifest import Scalar, StageName
    from scalellm_trt.backends.base import Backend
    from scalellm_trt.plan import Plan
    from scalellm_trt.recipe import LoadedRecipe

Step = Literal["plan", "quantize", "compile", "assemble"]
STEPS: tuple[Step, ...] = get_args(Step)

PACKAGE_DIR = Path(__file__).parent
# A stage's result also depends on our own code: an upgrade must not keep what an older rule wrote.
STAGE_SOURCES: Mapping[StageName, tuple[str, ...]] = {
    "quantize": ("checkpoint", "model_spec.py"),
    "compile": ("backends", "checkpoint", "model_spec.py"),
    "assemble": ("backends", "runtime", "triton"),
}


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


class _Build:
    """One run of the pipeline: the values that its steps hand on."""

    def __init__(self, loaded: LoadedRecipe, workspace: Workspace, reporter: Reporter, force: frozenset[Step]) -> None:
        self.loaded = loaded
        self.workspace = workspace
        self.reporter = reporter
        self.force = force
        self.name = loaded.recipe.name
        self.cache = StageCache(workspace.builds_dir)
        self.reports: list[StepReport] = []

    @contextmanager
    def step(self, step: Step) -> Iterator[list[str]]:
        """Time a step and report it; the caller fills the yielded list with the reasons why it ran."""
        self.reporter.started(step)
        started = time.monotonic()
        reasons: list[str] = []
        yield reasons
        seconds = time.monotonic() - started
        report = StepReport(step=step, ran=bool(reasons), reasons=tuple(reasons), seconds=seconds)
        self.reports.append(report)
        self.reporter.finished(report)

    def plan(self) -> Plan:
        """Fetch the model, decide everything, and keep the plan beside the artefacts."""
        with self.step("plan") as reasons:
            model = _fetch(self.loaded, self.workspace, self.reporter)
            made = make_plan(self.loaded, model)
            path = self.workspace.builds_dir / self.name / "plan.json"
            text = planning.to_json(made)
            if not path.is_file() or path.read_text(encoding="utf-8") != text:
                manifest.replace_text(path, text)
                reasons.append("new plan")
        return made

    def stage(self, stage: StageName, inputs: Mapping[str, Scalar], make: Callable[[Path], None]) -> StageResult:
        """Run one cached stage."""
        with self.step(stage) as reasons:
            result = self.cache.find_or_make(self.name, stage, inputs, make, force=stage in self.force)
            reasons.extend(result.reasons)
        return result


def build(
    path: Path,
    *,
    workspace: Workspace,
    reporter: Reporter,
    until: Step = "assemble",
    force: frozenset[Step] = frozenset(),
) -> BuildReport:
    """Take a recipe as far as `until`; steps in `force` run even when nothing changed.

    Raises:
        RecipeError, UnsupportedError, ToolchainError, StageError, ArtefactError: as `errors` tells them apart.
    """
    run = _Build(recipe.load(path), workspace, reporter, force)
    _stages(run, until)
    return BuildReport(name=run.name, steps=tuple(run.reports))


def _stages(run: _Build, until: Step) -> None:
    plan = run.plan()
    backend = backend_for(plan.backend)
    if until == "plan":
        return
    quantized = run.stage(
        "quantize",
        stage_inputs(plan, backend, "quantize"),
        lambda out_dir: backend.quantize(plan, out_dir, run.reporter.progress),
    )
    if until == "quantize":
        return
    checkpoint = Checkpoint(directory=quantized.directory, digest=quantized.manifest.digest)
    compiled = run.stage(
        "compile",
        {**stage_inputs(plan, backend, "compile"), "checkpoint": checkpoint.digest},
        lambda out_dir: backend.compile(plan, checkpoint, out_dir, run.reporter.progress),
    )
    if until == "compile":
        return
    _assemble(run, plan, backend, compiled)


def make_plan(loaded: LoadedRecipe, model: LocalModel) -> Plan:
    """Decide everything that `loaded` leaves open, for the machine at hand, and let the backend object.

    Raises:
        UnsupportedError: with every reason why it cannot work.
    """
    spec = model_spec.read(model.directory)
    plan = planning.make(loaded, model, spec, detect.machine())
    if problems := backend_for(plan.backend).check(plan):
        raise UnsupportedError(problems)
    return plan


def stage_inputs(plan: Plan, backend: Backend, stage: StageName) -> dict[str, Scalar]:
    """Return all that a stage's result depends on, besides the artefact before it."""
    tools = {f"tool.{name}": version for name, version in backend.tool_versions(stage).items()}
    sources = [PACKAGE_DIR / name for name in STAGE_SOURCES[stage]]
    code = digest.of_sources(sources, PACKAGE_DIR)
    return {**planning.stage_inputs(plan, stage), **tools, "scalellm_trt": code}


def _fetch(loaded: LoadedRecipe, workspace: Workspace, reporter: Reporter) -> LocalModel:
    model = loaded.recipe.model
    return model_source.resolve(
        model.source,
        model.sha256,
        workspace.model_cache_dir,
        reporter.progress,
        base_dir=loaded.path.parent,
    )


def _assemble(run: _Build, plan: Plan, backend: Backend, compiled: StageResult) -> None:
    raise NotImplementedError

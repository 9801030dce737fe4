"""One run of the line: plan → quantize → compile → assemble; each stage is found in the cache or made."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from scalellm_trt import plan as planning
from scalellm_trt import recipe
from scalellm_trt.artefacts import digest, manifest
from scalellm_trt.artefacts.stage_cache import StageCache, StageResult
from scalellm_trt.artefacts.types import Checkpoint, Engine
from scalellm_trt.backends import backend_for
from scalellm_trt.errors import StageError
from scalellm_trt.pipeline import gate, requirements
from scalellm_trt.pipeline.prepare import (
    fetch,
    make_plan,
    placed,
    published_inputs_path,
    reasons_to_publish,
    require_texts,
    stage_inputs,
)
from scalellm_trt.pipeline.steps import BuildReport, Step, StepReport, Workspace
from scalellm_trt.triton import repository

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from scalellm_trt.artefacts.manifest import Scalar, StageName
    from scalellm_trt.artefacts.types import Stamp, TritonModel
    from scalellm_trt.backends.base import Backend
    from scalellm_trt.pipeline.steps import Reporter
    from scalellm_trt.plan import Plan
    from scalellm_trt.recipe import LoadedRecipe


class _Build:
    """The values that the steps of one build hand on, and the reports they leave."""

    def __init__(
        self, loaded: LoadedRecipe, workspace: Workspace, reporter: Reporter, force: frozenset[Step], *, smoke: bool
    ) -> None:
        self.loaded = loaded
        self.workspace = workspace
        self.reporter = reporter
        self.force = force
        self.smoke = smoke
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
            made = make_plan(self.loaded, fetch(self.loaded, self.workspace, self.reporter.progress), self.workspace)
            path = self.workspace.builds_dir / self.name / "plan.json"
            text = planning.to_json(made)
            if not path.is_file() or path.read_text(encoding="utf-8") != text:
                manifest.replace_text(path, text)
                reasons.append("new plan")
        return made

    def stage(
        self, plan: Plan, stage: StageName, inputs: Mapping[str, Scalar], make: Callable[[Path], Stamp | None]
    ) -> StageResult:
        """Run one cached stage; one that must run and has no room on the disk is refused before it starts."""

        def make_with_room(out_dir: Path) -> Stamp | None:
            if problem := planning.disk_problem(plan, stage):
                raise StageError(problem.message, hint=problem.hint)
            return make(out_dir)

        with self.step(stage) as reasons:
            result = self.cache.find_or_make(self.name, stage, inputs, make_with_room, force=stage in self.force)
            reasons.extend(result.reasons)
        return result


def build(
    path: Path,
    *,
    workspace: Workspace,
    reporter: Reporter,
    until: Step = "assemble",
    force: frozenset[Step] = frozenset(),
    smoke: bool = True,
) -> BuildReport:
    """Take a recipe as far as `until`; steps in `force` run even when nothing changed.

    With `smoke`, an engine of a kind that was never run before must answer well before it is published.

    Raises:
        RecipeError, UnsupportedError, ToolchainError, StageError, ArtefactError: as `errors` tells them apart.
        ServerNotReadyError, ThresholdMissedError: the smoke test could not run, or failed; nothing was published.
    """
    loaded = recipe.load(path)
    require_texts(loaded)
    requirements.require(loaded, workspace, until=until, force=force, progress=reporter.progress)
    run = _Build(loaded, workspace, reporter, force, smoke=smoke)
    for step in _steps(run):
        if step == until:
            break
    return BuildReport(name=run.name, steps=tuple(run.reports))


def _steps(run: _Build) -> Iterator[Step]:
    """Do one step after the other; each is done when its name is yielded."""
    plan = run.plan()
    backend = backend_for(plan.backend, run.workspace.site(run.loaded))
    progress = run.reporter.progress
    yield "plan"

    with placed(run.loaded):
        inputs = stage_inputs(plan, backend, "quantize")
    quantized = run.stage(plan, "quantize", inputs, lambda out_dir: backend.quantize(plan, out_dir, progress))
    checkpoint = Checkpoint(directory=quantized.directory, digest=quantized.manifest.digest)
    yield "quantize"

    inputs = {**stage_inputs(plan, backend, "compile"), "checkpoint": checkpoint.digest}
    compiled = run.stage(plan, "compile", inputs, lambda out_dir: backend.compile(plan, checkpoint, out_dir, progress))
    yield "compile"

    _assemble(run, plan, backend, checkpoint, compiled)
    yield "assemble"


def _assemble(run: _Build, plan: Plan, backend: Backend, checkpoint: Checkpoint, compiled: StageResult) -> None:
    """Publish the service, unless what is published was made from the same inputs and is intact."""
    engine = Engine(
        directory=compiled.directory,
        digest=compiled.manifest.digest,
        kind=backend.engine_kind,
        stamp=compiled.manifest.stamp,
    )
    inputs = {**stage_inputs(plan, backend, "assemble"), "engine": engine.digest}
    with run.step("assemble") as reasons:
        root = run.workspace.repository_dir
        state_dir = repository.state_dir_for(root, run.workspace.repository_state_dir)
        if repository.recover(root, state_dir):
            reasons.append("finished an interrupted switch")
        why = reasons_to_publish(run.workspace, run.name, inputs, force="assemble" in run.force)
        if not why:
            return
        reasons.extend(why)
        models = backend.triton_models(plan, engine)
        reasons.extend(_smoke(run, plan, checkpoint, engine, models))
        repository.publish(
            models,
            service=plan.name,
            recipe=str(run.loaded.path),
            owner_digest=digest.of_value(inputs),
            engine_digest=engine.digest,
            stamp=engine.stamp,
            toolchain=plan.toolchain,
            root=root,
            state_dir=state_dir,
        )
        manifest.replace_text(published_inputs_path(run.workspace, run.name), json.dumps(inputs, indent=1) + "\n")


def _smoke(run: _Build, plan: Plan, checkpoint: Checkpoint, engine: Engine, models: Sequence[TritonModel]) -> list[str]:
    """Let the gate decide, where there is one to pass; return what a reader of the report should know."""
    if not gate.is_needed(plan):
        return []
    if not run.smoke:
        return ["not smoke-tested: --no-smoke"]
    found = gate.find_server(plan, run.workspace.container)
    if isinstance(found, str):
        return [f"not smoke-tested: {found}"]
    builds_dir = run.workspace.builds_dir
    gate.check(plan, checkpoint, engine, models, found=found, builds_dir=builds_dir, progress=run.reporter.progress)
    return ["smoke test passed"]

"""What every backend does at build time; no branch on a backend's name anywhere else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from scalellm_trt.artefacts.manifest import Scalar, StageName
    from scalellm_trt.artefacts.types import Checkpoint, Engine, EngineKind, Stamp, TritonModel
    from scalellm_trt.errors import Problem
    from scalellm_trt.plan import Plan

    Progress = Callable[[str, float], None]
    """Called with a short activity and the share done, 0..1, as often as is convenient."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What a stage must find, known from the recipe alone: asked for before a model of 26 GB is fetched.

    Attributes:
        toolchain, hardware: names of rows.
        is_calibrated: whether weights or KV-cache scales are measured on text.
    """

    toolchain: str
    hardware: str
    weights: str
    is_calibrated: bool


class Backend(Protocol):
    """One toolchain. Methods that write do so into an empty `out_dir` that they own; the caller publishes it."""

    name: str
    engine_kind: EngineKind

    def check(self, plan: Plan) -> list[Problem]:
        """Return what keeps this backend from building `plan`; touches no GPU and imports nothing heavy."""
        ...

    def stage_inputs(self, plan: Plan, stage: StageName) -> dict[str, Scalar]:
        """Return what decides the bytes that a stage writes, besides the plan and our own code; part of its key.

        That is the versions of the libraries that compute them, and the contents of files that the plan only names.

        Raises:
            RecipeError: such a file cannot be read.
        """
        ...

    def missing(self, needs: Needs, stage: StageName, progress: Progress) -> list[str]:
        """Say what keeps `stage` from running, one line each; nothing where it can.

        Raises:
            ToolchainError: it cannot be found out.
        """
        ...

    def commands(self, plan: Plan, stage: StageName, source: Path, out_dir: Path) -> list[list[str]]:
        """Return the argv of every program that `stage` would start; none for a stage that runs in this process.

        Args:
            plan: what would be built.
            stage: which stage.
            source: the artefact before it.
            out_dir: where it would write.
        """
        ...

    def quantize(self, plan: Plan, out_dir: Path, progress: Progress) -> None:
        """Write the checkpoint of `plan` into `out_dir`.

        Raises:
            ToolchainError: a library is missing or has the wrong version.
            StageError: the work failed; the message has the cause.
        """
        ...

    def compile(self, plan: Plan, checkpoint: Checkpoint, out_dir: Path, progress: Progress) -> Stamp | None:
        """Write the engine made from `checkpoint` into `out_dir`; raises as `quantize` does.

        Returns:
            What the engine needs where it is loaded; None where it loads on any machine.
        """
        ...

    def planned_models(self, plan: Plan, engine_dir: Path | None) -> list[TritonModel]:
        """Return what `triton_models` will, before there is an engine; nothing of it is read.

        `engine_dir` is the engine that the recipe has now; None before its first build.
        """
        ...

    def triton_models(self, plan: Plan, engine: Engine) -> list[TritonModel]:
        """Return the models that serve `engine`, for `triton.repository` to render."""
        ...

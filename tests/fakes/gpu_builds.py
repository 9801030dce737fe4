"""A tiny model's recipe for a GPU, and a build of it on the machine of fake programs that gpu_bench.py makes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scalellm_trt import facts, pipeline
from scalellm_trt.pipeline import Workspace
from tests.fakes import tiny_models
from tests.fakes.reporters import Recorder

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from scalellm_trt.backends.container import EngineName
    from scalellm_trt.pipeline import BuildReport, Step

TOOLCHAIN = "tensorrt-llm-1.2.1"
RECIPE = """schema: 1
name: tiny
model:
  source: ./model
hardware: rtx4090
backend: tensorrt_llm
quantization:
  weights: int8_wo
  kv_cache_dtype: fp8
limits:
  max_batch_size: {max_batch_size}
  max_seq_len: 64
  max_num_tokens: 64
serving:
  kv_cache_reuse: false
  chunked_context: false
  kv_cache_tokens: 256
"""


def model_and_recipe(directory: Path) -> Path:
    """Write both; return the recipe."""
    tiny_models.write_model(directory / "model")
    return write_recipe(directory)


def write_recipe(directory: Path, *, max_batch_size: int = 4) -> Path:
    path = directory / "tiny.yaml"
    path.write_text(RECIPE.format(max_batch_size=max_batch_size))
    return path


def workspace_of(recipe: Path, container: EngineName | None = None) -> Workspace:
    return Workspace(
        builds_dir=recipe.parent / "builds", repository_dir=recipe.parent / "triton_repo", container=container
    )


def build(
    recipe: Path, *, until: Step = "assemble", force: Sequence[Step] = (), container: EngineName | None = None
) -> BuildReport:
    """Build without the smoke test, which test_gpu_gate.py is about."""
    return pipeline.build(
        recipe, workspace=workspace_of(recipe, container), reporter=Recorder(), until=until, force=frozenset(force),
        smoke=False,
    )  # fmt: skip


def ran(report: BuildReport) -> list[str]:
    return [step.step for step in report.steps if step.ran and step.step != "plan"]


def image() -> str:
    row = facts.toolchains()[TOOLCHAIN].gpu
    assert row is not None
    return row.image

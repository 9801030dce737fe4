"""A published engine and a machine whose container engine has the image that serves it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scalellm_trt import facts
from scalellm_trt.artefacts.types import Stamp
from scalellm_trt.triton import repository
from tests.fakes.engine_models import gpu_plan, models_of, write_engine
from tests.fakes.gpu_bench import Bench, bench

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

TOOLCHAIN = "tensorrt-llm-1.2.1"
GPU = facts.toolchains()[TOOLCHAIN].gpu
assert GPU is not None
IMAGE = GPU.image
STAMP = Stamp(
    gpu_name="NVIDIA GeForce RTX 4090",
    compute_capability="8.9",
    tensorrt="10.14.1.48",
    tensorrt_llm="1.2.1",
    driver_floor="580",
    image=IMAGE,
)


def publish(project: Path, *, toolchain: str | None = TOOLCHAIN, name: str = "llama") -> Path:
    """Publish an engine; return the repository."""
    directory = project / f"engine-{name}"
    engine = write_engine(directory)
    repository.publish(
        models_of(gpu_plan(name=name), engine),
        service=name, recipe="recipes/x.yaml", owner_digest="x", engine_digest="y", root=project / "triton_repo",
        state_dir=project / "state", stamp=STAMP, toolchain=toolchain,
    )  # fmt: skip
    return project / "triton_repo"


def machine(
    directory: Path, monkeypatch: pytest.MonkeyPatch, *, hardware: str | None = "rtx4090", engine: str = "docker"
) -> Bench:
    """A machine with a container engine that has the image, and no tritonserver."""
    return bench(
        directory / "machine", monkeypatch, toolchain=TOOLCHAIN, hardware=hardware, programs=("nvidia-smi", engine),
        images=[IMAGE],
    )  # fmt: skip

"""stamp_check: an engine is refused before any start where its card or its versions are not at hand."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from scalellm_trt.artefacts.types import Stamp
from scalellm_trt.errors import ArtefactError, ToolchainError
from scalellm_trt.triton import repository, stamp_check
from tests.fakes.gpu_bench import bench
from tests.fakes.triton_models import make_engine, make_model

if TYPE_CHECKING:
    from pathlib import Path

    from scalellm_trt.backends.gpu_machine import GpuMachine

IMAGE = "nvcr.io/nvidia/tritonserver:26.04-trtllm-python-py3"
STAMP = Stamp(
    gpu_name="NVIDIA GeForce RTX 4090",
    compute_capability="8.9",
    tensorrt="10.14.1.48",
    tensorrt_llm="1.2.1",
    driver_floor="580",
    image=IMAGE,
)


def publish(directory: Path, stamp: Stamp | None) -> Path:
    make_engine(directory / "engine", "1")
    repository.publish(
        [make_model("chat", engine=directory / "engine", version="1")],
        service="chat", recipe="recipes/chat.yaml", owner_digest="o", engine_digest="e",
        root=directory / "triton_repo", state_dir=directory / "state", stamp=stamp,
    )  # fmt: skip
    return directory / "triton_repo"


def look_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hardware: str | None, toolchain: str) -> GpuMachine:
    """Return what a machine with this card and toolchain is found to be."""
    bench(tmp_path / "machine", monkeypatch, toolchain=toolchain, hardware=hardware)
    return stamp_check.local_machine(tmp_path / "probe.log")


def test_images_of_one_class_interchange(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Built in 26.04 and served in 26.07: the same TensorRT and TensorRT-LLM."""
    found = look_at(tmp_path, monkeypatch, "rtx4090", "tensorrt-llm-1.2.1")
    stamp_check.check(publish(tmp_path, STAMP), lambda: dataclasses.replace(found, image=IMAGE.replace("04", "07")))


@pytest.mark.parametrize(("hardware", "says"), [("rtx3090", "RTX 3090 (compute capability 8.6)"), ("l4", "NVIDIA L4")])
def test_another_card_is_refused_with_the_command_that_builds_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hardware: str, says: str
) -> None:
    found = look_at(tmp_path, monkeypatch, hardware, "tensorrt-llm-1.2.1")
    with pytest.raises(ArtefactError) as caught:
        stamp_check.check(publish(tmp_path, STAMP), lambda: found)
    assert caught.value.exit_code == 6
    assert says in caught.value.message
    assert "built on NVIDIA GeForce RTX 4090 (8.9)" in caught.value.message
    assert "scalellm-trt build recipes/chat.yaml --force compile" in str(caught.value)


def test_another_version_is_refused_with_the_image_that_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = look_at(tmp_path, monkeypatch, "rtx4090", "tensorrt-llm-1.1.0")
    with pytest.raises(ToolchainError) as caught:
        stamp_check.check(publish(tmp_path, STAMP), lambda: found)
    assert caught.value.exit_code == 4
    assert "TensorRT-LLM here is 1.1.0, the engine was built with 1.2.1" in caught.value.message
    assert IMAGE in str(caught.value)


def test_without_a_card_or_toolchain_it_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = look_at(tmp_path, monkeypatch, None, "tensorrt-llm-1.2.1")
    with pytest.raises(ArtefactError, match="there is no card"):
        stamp_check.check(publish(tmp_path, STAMP), lambda: found)
    with pytest.raises(ToolchainError, match="TensorRT-LLM here is not installed"):
        stamp_check.check(tmp_path / "triton_repo", lambda: dataclasses.replace(found, tensorrt_llm=None))


def test_engines_without_a_stamp_are_not_looked_at(tmp_path: Path) -> None:
    def look() -> GpuMachine:
        raise AssertionError

    stamp_check.check(publish(tmp_path, None), look)

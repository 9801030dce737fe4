"""server_image: the argv of a tritonserver in a container, and what refuses it beforehand."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from scalellm_trt.backends.container import ENGINES
from scalellm_trt.errors import ArtefactError, ToolchainError, UnsupportedError
from scalellm_trt.triton import launch, published_engines, server_image
from scalellm_trt.triton.server_command import ServerOptions
from tests.fakes.served_images import machine, publish

if TYPE_CHECKING:
    from scalellm_trt.backends.container import EngineName

GOLDENS = Path(__file__).parents[2] / "goldens"


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("world_size", [1, 2])
def test_the_argv_is_the_golden_one(engine: EngineName, world_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    monkeypatch.setattr(os, "getgid", lambda: 1000)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    options = ServerOptions(repository=Path("/data/triton_repo"), shm_prefix="scalellm_1_")
    found = server_image.binary_of(engine, "example/tritonserver:26.07")
    model = published_engines.PublishedEngine(
        model="a_engine", service="a", hosted_by="tensorrtllm", world_size=world_size, repository_paths={}
    )
    mode = launch.choose_mode([model], wants_orchestrator=False)
    assert found.image is not None
    made = server_image.contain(launch.plan(found, options, [model], mode, num_gpus=world_size), found.image, options)
    golden = GOLDENS / f"tritonserver_{engine}_{world_size}.txt"
    assert "\n".join(made.argv) + "\n" == golden.read_text()
    assert made.last == (engine, "rm", "--force", "scalellm-serve-1")
    assert not made.env


@pytest.mark.parametrize(
    ("hardware", "error", "says"),
    [
        ("rtx3090", ArtefactError, "the card is NVIDIA GeForce RTX 3090"),
        (None, ToolchainError, "--container: "),
    ],
)
def test_another_card_is_refused_before_an_image_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hardware: str | None, error: type[Exception], says: str
) -> None:
    made = machine(tmp_path, monkeypatch, hardware=hardware)
    with pytest.raises(error, match=says):
        server_image.find(publish(tmp_path), "docker", tmp_path / "probe.log")
    assert made.commands() == []


def test_an_image_with_other_versions_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(tmp_path, monkeypatch).installed(tensorrt="10.13.3.9")
    with pytest.raises(ToolchainError, match=r"TensorRT here is 10\.13\.3\.9, the engine was built with 10\.14"):
        server_image.find(publish(tmp_path), "docker", tmp_path / "probe.log")


def test_services_without_an_image_and_of_two_images_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(tmp_path, monkeypatch)
    with pytest.raises(UnsupportedError, match="has no service"):
        server_image.toolchain_of(tmp_path / "nothing")
    publish(tmp_path, name="other", toolchain="openvino-2026.4")
    with pytest.raises(UnsupportedError, match="other: not built for an image"):
        server_image.toolchain_of(publish(tmp_path))
    publish(tmp_path, name="other", toolchain="tensorrt-llm-1.1.0")
    with pytest.raises(UnsupportedError, match="no one image serves them"):
        server_image.toolchain_of(tmp_path / "triton_repo")
    alone = publish(tmp_path / "alone", toolchain="tensorrt-llm-1.3")
    with pytest.raises(UnsupportedError, match="has no tritonserver"):
        server_image.toolchain_of(alone)

"""pipeline: a tiny model through the whole line on a machine of fake programs: engine built, stamped, published."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from scalellm_trt.artefacts import manifest
from scalellm_trt.errors import RecipeError, ToolchainError
from scalellm_trt.triton import repository
from tests.fakes import tiny_models
from tests.fakes.gpu_bench import Bench, bench
from tests.fakes.gpu_builds import TOOLCHAIN, build, image, model_and_recipe, ran

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return model_and_recipe(tmp_path)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """An RTX 4090 with trtllm-build installed."""
    return bench(tmp_path / "machine", monkeypatch, toolchain=TOOLCHAIN, hardware="rtx4090")


@pytest.fixture(autouse=True)
def _no_wait_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a power cut needs fsync, which costs seconds here."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.mark.usefixtures("machine")
def test_an_engine_is_built_stamped_and_published_once(recipe: Path) -> None:
    assert ran(build(recipe)) == ["quantize", "compile", "assemble"]
    engine = recipe.parent / "builds" / "tiny" / "compile"
    assert {path.name for path in engine.iterdir()} >= {"rank0.engine", "config.json", "tokenizer.json"}
    assert not (engine / "model.cache").exists()
    stamp = manifest.read(engine).stamp
    assert stamp is not None
    assert (stamp.gpu_name, stamp.compute_capability) == ("NVIDIA GeForce RTX 4090", "8.9")
    assert (stamp.tensorrt_llm, stamp.tensorrt, stamp.image) == ("1.2.1", "10.14.1.48", None)
    (service,) = repository.list_services(recipe.parent / "triton_repo")
    assert service.current.stamp == stamp
    assert (recipe.parent / "triton_repo" / "tiny_engine" / "1" / "engine" / "rank0.engine").is_file()
    assert ran(build(recipe)) == []


def test_without_the_toolchain_nothing_is_done_and_the_commands_are_said(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench(tmp_path / "machine", monkeypatch, toolchain=TOOLCHAIN, hardware=None, programs=())
    with pytest.raises(ToolchainError) as caught:
        build(recipe)
    assert caught.value.exit_code == 4
    assert f"scalellm-trt build {recipe} --container" in str(caught.value)
    assert f"{image()} trtllm-build --checkpoint_dir" in str(caught.value)
    assert not (recipe.parent / "builds" / "tiny").exists()
    assert not (recipe.parent / "builds" / ".cache" / "stages").exists()


@pytest.mark.usefixtures("machine")
def test_stages_that_need_no_card_run_without_one(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert ran(build(recipe, until="quantize")) == ["quantize"]


@pytest.mark.parametrize(
    ("hardware", "versions", "found"),
    [
        (
            "rtx3090",
            {},
            "the first card is NVIDIA GeForce RTX 3090 (compute capability 8.6), the recipe is for",
        ),
        ("rtx4090", {"tensorrt_llm": "1.1.0"}, "tensorrt_llm is 1.1.0, the toolchain has 1.2.1"),
        ("rtx4090", {"tensorrt": "10.13.3.9"}, "tensorrt is 10.13.3.9, the toolchain has 10.14.1.48"),
        (None, {}, "nvidia-smi shows no card"),
    ],
)
def test_another_card_or_version_is_refused_before_any_work(
    recipe: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    hardware: str | None,
    versions: dict[str, str],
    found: str,
) -> None:
    made = bench(tmp_path / "machine", monkeypatch, toolchain=TOOLCHAIN, hardware=hardware)
    made.installed(**versions)
    with pytest.raises(ToolchainError) as caught:
        build(recipe)
    assert found in caught.value.message
    assert not (recipe.parent / "builds" / "tiny" / "quantize").exists()


def test_an_old_driver_is_told_before_an_image_is_pulled(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = bench(
        tmp_path / "machine", monkeypatch, toolchain=TOOLCHAIN, hardware="rtx4090", programs=("nvidia-smi", "docker")
    )
    cards = json.loads(os.environ["FAKE_NVIDIA_SMI"])
    cards["cards"][0]["driver_version"] = "535.104.05"
    monkeypatch.setenv("FAKE_NVIDIA_SMI", json.dumps(cards))
    with pytest.raises(ToolchainError, match=r"driver is 535\.104\.05, the toolchain needs 580"):
        build(recipe, container="docker")
    assert [argv for argv in made.commands() if argv[1] == "run"] == []


def test_a_container_is_refused_for_a_backend_without_an_image(tmp_path: Path) -> None:
    tiny_models.write_model(tmp_path / "model")
    path = tmp_path / "cpu.yaml"
    path.write_text(
        "schema: 1\nname: cpu\nmodel:\n  source: ./model\nhardware: cpu\nbackend: openvino\n"
        "limits:\n  max_batch_size: 2\n  max_seq_len: 64\n"
    )
    with pytest.raises(RecipeError, match="--container: openvino has no container image"):
        build(path, container="docker")

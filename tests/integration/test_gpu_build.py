"""pipeline: builds on a machine of fake programs that take their time: in containers, failing, again, killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from scalellm_trt import pipeline
from scalellm_trt.artefacts import manifest
from scalellm_trt.errors import StageError
from tests.fakes.gpu_bench import Bench, bench
from tests.fakes.gpu_builds import TOOLCHAIN, build, image, model_and_recipe, ran, workspace_of, write_recipe

if TYPE_CHECKING:
    from pathlib import Path

    from scalellm_trt.backends.container import EngineName

pytestmark = pytest.mark.integration
FAILURES = {
    "exit": "the builder gave up",
    "kill": "the host ran out of memory (SIGKILL",
    "device_memory": "the card ran out of memory",
    "host_memory": "the host ran out of memory",
    "partial": "rank0.engine is missing",
    "disk": "the disk is full",
    "unsupported": "int8_wo with KV cache fp8 is not supported by tensorrt-llm-1.2.1 on this card",
    "version_text": "is not the version of the toolchain tensorrt-llm-1.2.1",
    "no_device": "no usable NVIDIA device was found",
}


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
def test_a_limit_compiles_again_with_what_the_first_build_learnt(recipe: Path) -> None:
    build(recipe)
    (cache,) = (recipe.parent / "builds" / ".cache" / "timing").iterdir()
    assert cache.name == "nvidia-geforce-rtx-4090-tensorrt-10.14.1.48.cache"
    write_recipe(recipe.parent, max_batch_size=2)
    assert ran(build(recipe)) == ["compile", "assemble"]
    log = recipe.parent / "builds" / "tiny" / "logs" / "compile.log"
    assert f"--input_timing_cache {cache}" in log.read_text()
    assert "--input_timing_cache" not in log.with_name("compile.log.1").read_text()


@pytest.mark.usefixtures("machine")
def test_until_and_force_work_as_for_any_backend(recipe: Path) -> None:
    assert ran(build(recipe, until="compile")) == ["quantize", "compile"]
    assert not (recipe.parent / "triton_repo").exists()
    assert ran(build(recipe, until="compile", force=["compile"])) == ["compile"]


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize("behaviour", FAILURES)
def test_a_failed_build_names_cause_and_next_step_and_the_next_one_goes_on(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, behaviour: str
) -> None:
    monkeypatch.setenv("FAKE_TRTLLM_BUILD", behaviour)
    with pytest.raises(StageError) as caught:
        build(recipe, until="compile")
    assert caught.value.exit_code == 5
    assert FAILURES[behaviour] in caught.value.message
    assert caught.value.hint
    assert str(recipe.parent / "builds" / "tiny" / "logs" / "compile.log") in caught.value.hint
    monkeypatch.delenv("FAKE_TRTLLM_BUILD")
    assert ran(build(recipe, until="compile")) == ["compile"]


@pytest.mark.parametrize("engine", ["docker", "podman"])
@pytest.mark.parametrize("behaviour", ["kill", "device_memory", "partial"])
def test_failures_inside_a_container_are_told_apart_too(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: EngineName, behaviour: str
) -> None:
    bench(
        tmp_path / "machine", monkeypatch, toolchain=TOOLCHAIN, hardware="rtx4090",
        programs=("nvidia-smi", engine), images=[image()],
    )  # fmt: skip
    monkeypatch.setenv("FAKE_TRTLLM_BUILD", behaviour)
    with pytest.raises(StageError) as caught:
        build(recipe, container=engine)
    assert FAILURES[behaviour] in caught.value.message


@pytest.mark.parametrize("engine", ["docker", "podman"])
def test_a_container_builds_the_same_engine_and_stamps_its_image(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: EngineName
) -> None:
    made = bench(
        tmp_path / "machine", monkeypatch, toolchain=TOOLCHAIN, hardware="rtx4090",
        programs=("nvidia-smi", engine), images=[image()],
    )  # fmt: skip
    assert ran(build(recipe, container=engine)) == ["quantize", "compile", "assemble"]
    stamp = manifest.read(recipe.parent / "builds" / "tiny" / "compile").stamp
    assert stamp is not None
    assert stamp.image == image()
    runs = [argv for argv in made.commands() if argv[1] == "run"]
    assert all(argv[argv.index("--network") + 1] == "none" for argv in runs)
    # Once to look before any work, once where the engine is stamped, once to build.
    assert [argv[argv.index("--pull") + 1] for argv in runs] == ["missing", "missing", "never"]
    # Made here or in the image: the same artefact.
    assert ran(build(recipe, container=engine)) == []


def test_a_pulled_image_of_the_stamp_class_is_used_where_the_pinned_one_is_not_here(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = image().replace("26.07", "26.04")
    bench(
        tmp_path / "machine", monkeypatch, toolchain=TOOLCHAIN, hardware="rtx4090",
        programs=("nvidia-smi", "docker"), images=[older],
    )  # fmt: skip
    build(recipe, container="docker")
    stamp = manifest.read(recipe.parent / "builds" / "tiny" / "compile").stamp
    assert stamp is not None
    assert stamp.image == older


@pytest.mark.usefixtures("machine")
def test_a_finished_engine_is_assembled_where_nothing_can_compile(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(recipe, until="compile")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert ran(build(recipe)) == ["assemble"]


@pytest.mark.usefixtures("machine")
def test_a_dry_run_has_every_argv_and_every_text_and_changes_nothing(recipe: Path) -> None:
    steps = {
        step.step: step
        for step in pipeline.dry_run(
            recipe, workspace=workspace_of(recipe, "docker"), until="assemble", force=frozenset()
        )
    }
    (argv,) = steps["compile"].commands
    assert argv[:2] == ("docker", "run")
    assert argv[argv.index(image()) + 1] == "trtllm-build"
    assert steps["quantize"].commands == ()
    files = steps["assemble"].files
    assert files["tiny_engine/1/engine/"] is None
    assert not (recipe.parent / "builds" / "tiny").exists()
    assert not (recipe.parent / "builds" / ".cache" / "stages").exists()
    build(recipe)
    for path, text in files.items():
        published = recipe.parent / "triton_repo" / path
        assert published.exists()
        if text is not None:
            assert published.read_text() == text


@pytest.mark.usefixtures("machine")
def test_kill_9_during_compile_leaves_no_builder_and_the_next_build_goes_on(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_TRTLLM_BUILD", "slow")
    argv = [sys.executable, "-m", "scalellm_trt", "build", str(recipe)]
    argv += ["--builds", str(recipe.parent / "builds"), "--repository", str(recipe.parent / "triton_repo")]
    child = subprocess.Popen(argv, env={**os.environ, "FAKE_TRTLLM_BUILD_S": "600"}, stderr=subprocess.DEVNULL)
    log = recipe.parent / "builds" / "tiny" / "logs" / "compile.log"
    deadline = time.monotonic() + 60
    while not (log.exists() and "TensorRT-LLM version" in log.read_text()):
        assert child.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    child.send_signal(signal.SIGKILL)
    child.wait()
    builders = ["pgrep", "-f", str(recipe.parent / "builds" / ".cache" / "stages" / "compile")]
    while subprocess.run(builders, capture_output=True, check=False).returncode == 0:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    monkeypatch.delenv("FAKE_TRTLLM_BUILD")
    assert ran(build(recipe)) == ["compile", "assemble"]

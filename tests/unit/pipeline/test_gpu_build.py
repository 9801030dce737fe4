"""pipeline: a tiny model through the whole line on a machine of fake programs: engine built, stamped, published."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from scalellm_trt import facts, pipeline
from scalellm_trt.artefacts import manifest
from scalellm_trt.errors import RecipeError, StageError, ToolchainError
from scalellm_trt.pipeline import Workspace
from scalellm_trt.triton import repository
from tests.fakes import tiny_models
from tests.fakes.gpu_bench import Bench, bench
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
    tiny_models.write_model(tmp_path / "model")
    return write_recipe(tmp_path)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """An RTX 4090 with trtllm-build installed."""
    return bench(tmp_path / "machine", monkeypatch, toolchain=TOOLCHAIN, hardware="rtx4090")


@pytest.fixture(autouse=True)
def _no_wait_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a power cut needs fsync, which costs seconds here."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


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
    """Build without the smoke test, which test_gate.py is about."""
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


@pytest.mark.usefixtures("machine")
def test_a_finished_engine_is_assembled_where_nothing_can_compile(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(recipe, until="compile")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert ran(build(recipe)) == ["assemble"]


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

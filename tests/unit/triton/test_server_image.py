"""server_image: a tritonserver in a container: its argv, what refuses it beforehand, and that nothing of it is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from scalellm_trt import facts
from scalellm_trt.artefacts.types import Stamp
from scalellm_trt.backends.container import ENGINES
from scalellm_trt.errors import ArtefactError, ServerNotReadyError, ToolchainError, UnsupportedError
from scalellm_trt.triton import launch, ports, published_engines, repository, server, server_image, serving
from scalellm_trt.triton.server_command import ServerOptions
from tests.fakes.engine_models import gpu_plan, models_of, write_engine
from tests.fakes.gpu_bench import Bench, bench
from tests.fakes.processes import has_ended

if TYPE_CHECKING:
    from scalellm_trt.backends.container import EngineName

GOLDENS = Path(__file__).parents[2] / "goldens"
ROOT = Path(__file__).parents[3]
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


def start(root: Path, engine: EngineName) -> server.RunningServer:
    """Start what `serve --container` starts."""
    http_port, grpc_port, metrics_port = ports.free_ports(3)
    found = server_image.find(root, engine, root.parent / "probe.log")
    options = ServerOptions(
        repository=root, shm_prefix=f"scalellm_{os.getpid()}_", http_port=http_port, grpc_port=grpc_port,
        metrics_port=metrics_port,
    )  # fmt: skip
    _, planned = serving.prepare(found, options, state_dir=root.parent / "state", wants_orchestrator=False)
    return server.start(found, options, log=root.parent / "server.log", launch=planned)


def containers(made: Bench) -> list[Path]:
    return list(made.record.parent.glob("*.container"))


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


@pytest.mark.parametrize("engine", ENGINES)
def test_a_repository_is_served_by_its_image_and_nothing_is_left(
    engine: EngineName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = machine(tmp_path, monkeypatch, engine=engine)
    with start(publish(tmp_path), engine) as running:
        assert running.wait_ready(60).model_names == ("llama", "llama_engine")
        [process] = containers(made)
        pid = int(process.read_text())
        assert not has_ended(pid)
    assert has_ended(pid)
    assert containers(made) == []
    assert made.commands()[-1] == [engine, "rm", "--force", process.stem]


def test_a_server_that_ignores_its_end_and_one_whose_client_was_killed_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = machine(tmp_path, monkeypatch)
    with start(publish(tmp_path), "docker") as running:
        running.wait_ready(60)
        [process] = containers(made)
        pid = int(process.read_text())
        os.killpg(running.pid, signal.SIGKILL)
        time.sleep(0.2)
        assert not has_ended(pid)
        with pytest.raises(ServerNotReadyError, match="was killed by SIGKILL"):
            running.wait()
    assert has_ended(pid)
    assert containers(made) == []


@pytest.mark.parametrize("is_stubborn", [False, True])
def test_kill_9_leaves_no_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_stubborn: bool) -> None:
    made = machine(tmp_path, monkeypatch)
    if is_stubborn:
        monkeypatch.setenv("FAKE_STUBBORN", "1")
    root = publish(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(ROOT), os.environ["PYTHONPATH"])))
    http_port, grpc_port, metrics_port = ports.free_ports(3)
    argv = [sys.executable, "-m", "scalellm_trt", "serve", "--container", "--json", "--repository", str(root)]
    argv += ["--builds", str(tmp_path / "builds"), "--http-port", str(http_port), "--grpc-port", str(grpc_port)]
    argv += ["--exit-timeout", "0"]
    child = subprocess.Popen([*argv, "--metrics-port", str(metrics_port)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    with child.stdout:
        assert json.loads(child.stdout.readline())["model_names"] == ["llama", "llama_engine"]
    [process] = containers(made)
    pid = int(process.read_text())
    child.kill()
    child.wait()
    deadline = time.monotonic() + 20
    while containers(made) or not has_ended(pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_container_that_does_not_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(tmp_path, monkeypatch)
    monkeypatch.setenv("FAKE_ANSWERS", "none")
    with start(publish(tmp_path), "docker") as running, pytest.raises(ServerNotReadyError) as caught:
        running.wait_ready(60)
    assert caught.value.exit_code == 7
    assert "the model llama failed to load: Internal: no kernel image is available" in caught.value.message


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

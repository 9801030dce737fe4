"""container: the argv of docker and podman: what the command inside can reach, as whom, and what it cannot see."""

from __future__ import annotations

from pathlib import Path

import pytest

from scalellm_trt.backends import container
from scalellm_trt.backends.container import ContainerRun, EngineName, Mount

RUN = ContainerRun(
    image="example/image:26.07",
    name="scalellm-1",
    argv=("trtllm-build", "--output_dir", "/data/out"),
    mounts=(Mount(path=Path("/data/in")), Mount(path=Path("/data/out"), is_read_only=False)),
    user_id=1000,
    group_id=1000,
    env_names=("HF_TOKEN",),
    workdir=Path("/data/out"),
)
GOLDEN = {
    "docker": "docker run --rm --init --name scalellm-1 --pull never --network none --security-opt label=disable "
    "--gpus all --user 1000:1000 --shm-size 2g --ulimit memlock=-1 --ulimit stack=67108864 --env HOME=/tmp "
    "--env USER=scalellm --env HF_TOKEN --mount type=bind,source=/data/in,target=/data/in,readonly "
    "--mount type=bind,source=/data/out,target=/data/out --workdir /data/out example/image:26.07 trtllm-build "
    "--output_dir /data/out",
    "podman": "podman run --rm --init --name scalellm-1 --pull never --network none --security-opt label=disable "
    "--device nvidia.com/gpu=all --user 1000:1000 --userns keep-id --shm-size 2g --ulimit memlock=-1 "
    "--ulimit stack=67108864 --env HOME=/tmp --env USER=scalellm --env HF_TOKEN "
    "--mount type=bind,source=/data/in,target=/data/in,readonly --mount type=bind,source=/data/out,target=/data/out "
    "--workdir /data/out example/image:26.07 trtllm-build --output_dir /data/out",
}


def replace(**changes: object) -> ContainerRun:
    import dataclasses

    return dataclasses.replace(RUN, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("engine", container.ENGINES)
def test_the_argv_is_as_promised(engine: EngineName) -> None:
    assert " ".join(container.run_command(engine, RUN)) == GOLDEN[engine]


def test_a_secret_is_passed_by_its_name_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    argv = container.run_command("docker", RUN)
    assert not any("hf_secret" in word for word in argv)
    assert argv[argv.index("HF_TOKEN") - 1] == "--env"


def test_a_comma_in_a_path_does_not_become_an_option() -> None:
    argv = container.run_command("docker", replace(mounts=(Mount(path=Path("/a,readonly/b")),)))
    assert """type=bind,"source=/a,readonly/b","target=/a,readonly/b",readonly""" in argv


def test_a_network_is_the_exception() -> None:
    argv = container.run_command("docker", replace(has_network=True))
    assert argv[argv.index("--network") + 1] == "host"


def test_root_may_start_mpi_and_needs_no_mapping() -> None:
    argv = container.run_command("podman", replace(user_id=0, group_id=0))
    assert "OMPI_ALLOW_RUN_AS_ROOT=1" in argv
    assert "--userns" not in argv
    assert not any(word.startswith("OMPI_") for word in container.run_command("podman", RUN))


def test_the_memory_of_a_container_is_the_sum_of_its_processes() -> None:
    assert container.resident_bytes("RSS\n2048\n1024\n") == 3 << 20
    assert container.resident_bytes("") == 0


def test_the_first_engine_on_the_path_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert container.find_engine() is None
    (tmp_path / "podman").write_text("#!/bin/sh\n")
    (tmp_path / "podman").chmod(0o755)
    assert container.find_engine() == "podman"

from __future__ import annotations

from pathlib import Path

import pytest

from scalellm_trt.triton.binary import ServerBinary
from scalellm_trt.triton.server_command import ServerOptions, command, complete, new_shm_prefix

GOLDENS = Path(__file__).parents[2] / "goldens"
WHEEL = ServerBinary(
    executable=Path("/venv/pytriton/tritonserver/bin/tritonserver"),
    origin="wheel",
    backend_directory=Path("/home/me/.cache/scalellm-trt/tritonserver/backends-1"),
)
IMAGE = ServerBinary(executable=Path("/opt/tritonserver/bin/tritonserver"), origin="path")


def test_the_command_of_the_wheel_is_the_golden_one() -> None:
    options = ServerOptions(repository=Path("triton_repo"), shm_prefix="scalellm_1_", log_verbose=1)
    assert "\n".join(command(WHEEL, options)) + "\n" == (GOLDENS / "tritonserver_wheel.txt").read_text()


def test_the_command_of_an_image_is_the_golden_one() -> None:
    options = ServerOptions(
        repository=Path("/models"),
        shm_prefix="scalellm_2_",
        address="0.0.0.0",
        http_port=9000,
        grpc_port=9001,
        metrics_port=9002,
        exit_timeout_s=5,
    )
    assert "\n".join(command(IMAGE, options)) + "\n" == (GOLDENS / "tritonserver_image.txt").read_text()


def test_a_users_arguments_come_first_and_unchanged() -> None:
    arguments = ["--model-repository", "triton_repo", "--log-verbose", "1"]
    assert complete(arguments, WHEEL, "p_")[1:5] == arguments


@pytest.mark.parametrize(
    "given",
    [
        ["--http-address", "0.0.0.0"],
        ["--http-address=0.0.0.0"],
        ["--backend-directory=/mine"],
        ["--backend-config=python,shm-region-prefix-name=mine"],
        ["--backend-config", "python,stub-timeout-seconds=3"],
    ],
)
def test_what_a_user_gives_is_not_added_again(given: list[str]) -> None:
    argv = complete(given, WHEEL, "p_")
    added = argv[1 + len(given) :]
    name = next(
        word
        for word in ("--http-address", "--backend-directory", "shm-region-prefix-name", "stub-timeout-seconds")
        if any(word in argument for argument in given)
    )
    assert not any(name in argument for argument in added)
    assert len(added) == 5


def test_every_server_has_shared_memory_of_its_own() -> None:
    assert new_shm_prefix() != new_shm_prefix()

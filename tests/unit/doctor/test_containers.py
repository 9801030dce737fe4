from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from scalellm_trt.doctor import containers, probe
from scalellm_trt.errors import ToolchainError

if TYPE_CHECKING:
    from pathlib import Path

IMAGE = "nvcr.io/nvidia/tritonserver:26.07-trtllm-python-py3"
OTHER = "nvcr.io/nvidia/tritonserver:26.06-trtllm-python-py3"
DOCKER = f"""#!/bin/sh
case "$*" in
  "info --format {{{{json .Runtimes}}}}") echo '{{"io.containerd.runc.v2":{{}},"nvidia":{{}}}}' ;;
  "image inspect --format {{{{.Size}}}} {OTHER}") echo 30123456789 ;;
  "image inspect --format {{{{.Size}}}} {IMAGE}") echo "Error: No such image: {IMAGE}" >&2; exit 1 ;;
  *) echo "unexpected: $*" >&2; exit 125 ;;
esac
"""


def engine(folder: Path, patch: pytest.MonkeyPatch, script: str, name: str = "docker") -> None:
    """Make `name` the only program on the PATH, besides those of the shell."""
    (folder / name).write_text(script)
    (folder / name).chmod(0o755)
    patch.setenv("PATH", str(folder))


def test_an_engine_tells_its_runtimes_and_which_images_are_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine(tmp_path, monkeypatch, DOCKER)
    assert containers.look([IMAGE, OTHER]) == containers.Containers(
        engine="docker", problem=None, has_nvidia=True, images={OTHER: 30123456789}
    )


def test_no_engine_is_an_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert containers.look([IMAGE]).engine is None


def test_an_engine_that_does_not_answer_is_told_in_its_own_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine(tmp_path, monkeypatch, "#!/bin/sh\necho 'permission denied: /var/run/docker.sock' >&2\nexit 1\n")
    assert containers.look([IMAGE]).problem == "permission denied: /var/run/docker.sock"


def test_the_toolkit_counts_without_a_registered_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine(tmp_path, monkeypatch, "#!/bin/sh\necho '{\"runc\":{}}'\n")
    assert not containers.look([]).has_nvidia
    (tmp_path / "nvidia-ctk").write_text("#!/bin/sh\n")
    (tmp_path / "nvidia-ctk").chmod(0o755)
    assert containers.look([]).has_nvidia


def test_podman_wants_the_device_interface_of_the_toolkit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine(tmp_path, monkeypatch, "#!/bin/sh\necho crun\n", name="podman")
    assert not containers.look([], root=tmp_path).has_nvidia
    (tmp_path / "etc/cdi").mkdir(parents=True)
    (tmp_path / "etc/cdi/nvidia.yaml").touch()
    assert containers.look([], root=tmp_path).has_nvidia


def test_an_image_is_looked_into_with_the_cards_and_limits_of_a_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = os.environ["PATH"]
    script = f'#!/bin/sh\necho "$*" > {tmp_path}/argv\necho "== Triton =="\nexec python3 -I -S {probe.__file__}\n'
    engine(tmp_path, monkeypatch, script)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{path}")
    found = containers.look_inside("docker", IMAGE)
    assert found.shm_bytes == probe.look().shm_bytes
    argv = (tmp_path / "argv").read_text()
    assert "--network none" in argv
    assert "--gpus all" in argv
    assert f"--user {os.getuid()}:{os.getgid()}" in argv
    assert "--shm-size 2g --ulimit memlock=-1 --ulimit stack=67108864" in argv
    assert f"target={probe.__file__},readonly" in argv
    assert argv.rstrip().endswith(f"{IMAGE} python3 {probe.__file__}")


def test_podman_gives_the_cards_by_their_device_names() -> None:
    command = containers.probe_command("podman", IMAGE)
    assert command[command.index("--device") + 1] == "nvidia.com/gpu=all"


@pytest.mark.parametrize("script", ["#!/bin/sh\necho no probe\n", "#!/bin/sh\necho 'no GPU' >&2\nexit 125\n"])
def test_an_image_that_does_not_answer_is_a_toolchain_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    engine(tmp_path, monkeypatch, script)
    with pytest.raises(ToolchainError, match=f"{IMAGE} cannot be looked into: "):
        containers.look_inside("docker", IMAGE)

"""A command in, the argv that runs it inside a container image out: docker or podman, the same paths inside as outside.

Inside, the command has the caller's user id, so that what it writes is the caller's; no network, so that a pulled image
works where there is none; and no secret in its argv: a variable such as HF_TOKEN is passed by its name alone.
"""

from __future__ import annotations

import csv
import io
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from scalellm_trt.errors import ToolchainError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

EngineName = Literal["docker", "podman"]
Pull = Literal["never", "missing"]

ENGINES: Final[tuple[EngineName, ...]] = ("docker", "podman")
# Triton's python backends and NCCL talk through /dev/shm; limits as NVIDIA's launch instructions give them.
SHM_SIZE: Final = "2g"
ULIMITS: Final = ("memlock=-1", "stack=67108864")
# The user id has no entry in the image's passwd: HOME and USER keep libraries from asking for one.
BASE_ENV: Final[Mapping[str, str]] = {"HOME": "/tmp", "USER": "scalellm"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """A directory or file of the host that the container sees under the same path."""

    path: Path
    is_read_only: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerRun:
    """One run of a command in an image.

    Attributes:
        name: the container's; a run that our death left behind is found and ended by it.
        user_id, group_id: whom the command runs as.
        env: variables with values that anybody may read.
        env_names: variables that the container gets from the caller's environment, secrets among them.
        has_network: whether it can reach anything, and be reached.
    """

    image: str
    name: str
    argv: Sequence[str]
    mounts: Sequence[Mount]
    user_id: int
    group_id: int
    pull: Pull = "never"
    env: Mapping[str, str] = field(default_factory=dict)
    env_names: Sequence[str] = ()
    has_network: bool = False
    workdir: Path | None = None


def find_engine() -> EngineName | None:
    """Return the first container engine on the PATH."""
    return next((name for name in ENGINES if shutil.which(name)), None)


def require_engine() -> EngineName:
    """Return the first container engine on the PATH.

    Raises:
        ToolchainError: there is none.
    """
    found = find_engine()
    if found is None:
        message = f"--container: neither {' nor '.join(ENGINES)} is on the PATH"
        raise ToolchainError(message, hint="Install one, with NVIDIA's container toolkit: scalellm-trt doctor")
    return found


def run_command(engine: EngineName, run: ContainerRun) -> list[str]:
    """Return the argv that runs `run.argv` in the foreground and removes the container afterwards."""
    options = ["--rm", "--init", "--name", run.name, "--pull", run.pull]
    options += ["--network", "host" if run.has_network else "none"]
    # Labels would hide mounted files from the container on SELinux hosts; relabelling them is not ours to do.
    options += ["--security-opt", "label=disable", *_gpus(engine), *_user(engine, run)]
    options += ["--shm-size", SHM_SIZE]
    for limit in ULIMITS:
        options += ["--ulimit", limit]
    for name, value in {**BASE_ENV, **_as_root(run.user_id), **run.env}.items():
        options += ["--env", f"{name}={value}"]
    for name in run.env_names:
        options += ["--env", name]
    for mount in run.mounts:
        options += ["--mount", _mount(mount)]
    if run.workdir is not None:
        options += ["--workdir", str(run.workdir)]
    return [engine, "run", *options, run.image, *run.argv]


def remove_command(engine: EngineName, name: str) -> list[str]:
    """Return the argv that ends and removes a container, running or not."""
    return [engine, "rm", "--force", name]


def inspect_command(engine: EngineName, image: str) -> list[str]:
    """Return the argv that fails unless the image is on this machine."""
    return [engine, "image", "inspect", "--format", "{{.Id}}", image]


def processes_command(engine: EngineName, name: str) -> list[str]:
    """Return the argv that prints a header and the resident KiB of each process in a container."""
    return [engine, "top", name, "-eo", "rss"]


def resident_bytes(top: str) -> int:
    """Add up what `processes_command` printed; lines that are no number do not count."""
    return sum(int(line) << 10 for line in top.split() if line.isdecimal())


def _gpus(engine: EngineName) -> list[str]:
    # podman finds cards by the Container Device Interface that NVIDIA's toolkit writes.
    return ["--gpus", "all"] if engine == "docker" else ["--device", "nvidia.com/gpu=all"]


def _user(engine: EngineName, run: ContainerRun) -> list[str]:
    user = ["--user", f"{run.user_id}:{run.group_id}"]
    # Rootless podman maps the caller to root inside; without this the id given would be another user outside.
    return [*user, "--userns", "keep-id"] if engine == "podman" and run.user_id else user


def _as_root(user_id: int) -> Mapping[str, str]:
    if user_id:
        return {}
    return {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


def _mount(mount: Mount) -> str:
    """Return a bind mount as `--mount` takes it: one row of CSV, so that a comma in a path is quoted."""
    fields = ["type=bind", f"source={mount.path}", f"target={mount.path}"]
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow([*fields, "readonly"] if mount.is_read_only else fields)
    return text.getvalue()

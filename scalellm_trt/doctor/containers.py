"""The container engine of this machine: which, whether it answers, whether it gives cards, which images it holds."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from scalellm_trt import process
from scalellm_trt.backends.container import ContainerRun, Mount, find_engine, run_command
from scalellm_trt.doctor import probe
from scalellm_trt.errors import StageError, ToolchainError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from scalellm_trt.backends.container import EngineName
    from scalellm_trt.doctor.probe import Installation

_HOOKS = ("nvidia-container-runtime-hook", "nvidia-ctk")
_CDI_FILES = ("etc/cdi/nvidia.yaml", "var/run/cdi/nvidia.yaml")
_TIMEOUT_S = 30.0
_PROBE_TIMEOUT_S = 900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Containers:
    """The container engine.

    Attributes:
        engine: docker or podman; None where there is neither.
        problem: why it cannot be used, in its own words; None where it answers.
        has_nvidia: whether NVIDIA's container toolkit is there, without which a container sees no card.
        images: of those asked for, the ones that are here → size on disk in bytes.
    """

    engine: EngineName | None
    problem: str | None
    has_nvidia: bool
    images: Mapping[str, int]


def look(images: Sequence[str], root: Path = Path("/")) -> Containers:
    """Ask the first engine on the PATH; nothing is pulled or started."""
    engine = find_engine()
    if engine is None:
        return Containers(engine=None, problem=None, has_nvidia=False, images={})
    try:
        # `info` of docker asks the daemon and tells its runtimes; that of podman has another form.
        template = "{{json .Runtimes}}" if engine == "docker" else "{{.Host.OCIRuntime.Name}}"
        told = process.output([engine, "info", "--format", template], timeout_s=_TIMEOUT_S)
    except (ToolchainError, StageError) as error:
        return Containers(engine=engine, problem=_words(error.message), has_nvidia=False, images={})
    return Containers(
        engine=engine,
        problem=None,
        has_nvidia='"nvidia"' in told or _has_toolkit(engine, root),
        images={image: size for image in images if (size := _size(engine, image)) is not None},
    )


def probe_command(engine: EngineName, image: str) -> list[str]:
    """Return the command that runs the probe in an image, as a build would run: user, cards, limits, no network."""
    script = Path(probe.__file__).resolve()
    run = ContainerRun(
        image=image,
        name=f"scalellm-doctor-{os.getpid()}",
        argv=("python3", str(script)),
        mounts=(Mount(path=script),),
        user_id=os.getuid(),
        group_id=os.getgid(),
    )
    return run_command(engine, run)


def look_inside(engine: EngineName, image: str) -> Installation:
    """Run the probe in an image that is here.

    Raises:
        ToolchainError: the container does not start, or does not answer as the probe does.
    """
    command = probe_command(engine, image)
    try:
        told = process.output(command, timeout_s=_PROBE_TIMEOUT_S)
        # The image's entry point prints a banner first.
        return probe.from_json(told.strip().splitlines()[-1])
    except (StageError, ValueError, IndexError) as error:
        message = f"{image} cannot be looked into: {_words(str(error))}"
        hint = (
            "Reinstall NVIDIA's container toolkit if the words are about a GPU or a runtime: `nvidia-ctk` sets it up."
        )
        raise ToolchainError(message, hint=hint) from error


def _has_toolkit(engine: EngineName, root: Path) -> bool:
    if engine == "podman":
        return any((root / file).is_file() for file in _CDI_FILES)
    return any(shutil.which(hook) for hook in _HOOKS)


def _size(engine: str, image: str) -> int | None:
    try:
        told = process.output([engine, "image", "inspect", "--format", "{{.Size}}", image], timeout_s=_TIMEOUT_S)
    except (ToolchainError, StageError):
        return None
    return int(told.strip()) if told.strip().isdigit() else None


def _words(message: str) -> str:
    """Return what a program said when it failed, or how it ended."""
    first, *said = message.splitlines()
    words = " ".join(line.removeprefix("  | ").strip() for line in said).strip()
    return words or first.rpartition(": ")[2]

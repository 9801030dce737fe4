"""What the doctor looks at, read once: machine, packages, programs, ports, model repository, GPU toolchain."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scalellm_trt import detect, facts
from scalellm_trt.backends.container import find_engine
from scalellm_trt.doctor import containers, probe
from scalellm_trt.errors import ArtefactError, ToolchainError
from scalellm_trt.triton import binary, ports, repository_check, repository_manifest

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from scalellm_trt.artefacts.types import Stamp
    from scalellm_trt.detect import Machine
    from scalellm_trt.doctor.containers import Containers
    from scalellm_trt.doctor.probe import Installation
    from scalellm_trt.facts import GpuToolchain

SERVER_PORTS = (8000, 8001, 8002)


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuSurroundings:
    """What only a GPU toolchain is judged by.

    Attributes:
        installation: what is installed here, or in the image that was looked into.
        image: the image that was looked into; None for this machine or the container that this runs in.
        has_hf_token: whether there is one; never its value.
        stamps: service of the repository → what its engine was built by.
    """

    containers: Containers
    installation: Installation
    image: str | None
    has_hf_token: bool
    stamps: Mapping[str, Stamp]


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """Everything that the checks judge.

    Attributes:
        installed: Python distribution → version, None where it is not installed.
        tritonserver: where it was found; None where there is none that can be started.
        tritonserver_problem: why not, with the fix.
        container_engine: the first of docker and podman on the PATH.
        ports: port → who has it; None where it is free.
        repository: the folder that was looked at.
        num_services: directories in it that look like models; None where there is no such folder.
        repository_problems: what would stop tritonserver, one line each.
        gpu: None where no GPU toolchain is asked about.
    """

    machine: Machine
    installed: Mapping[str, str | None]
    tritonserver: str | None
    tritonserver_problem: ToolchainError | None
    container_engine: str | None
    ports: Mapping[int, str | None]
    repository: Path
    num_services: int | None
    repository_problems: tuple[str, ...]
    gpu: GpuSurroundings | None = None


def look(
    folder: Path, repository: Path, toolchain: GpuToolchain | None = None, *, in_container: bool = False
) -> Surroundings:
    """Read what the checks need; nothing is changed but the cache folder of the embedded server.

    Args:
        folder: where artefacts are written.
        repository: the model repository that `serve` would use.
        toolchain: the one to look for; None looks for none of a GPU.
        in_container: look into the toolchain's image instead of this machine.

    Raises:
        ToolchainError: the image is not here, or does not start.
    """
    server, problem = _tritonserver()
    engine = find_engine()
    return Surroundings(
        machine=detect.machine(folder),
        installed={name: _version(name) for name in _wanted_packages()},
        tritonserver=server,
        tritonserver_problem=problem,
        container_engine=engine,
        ports={port: _port_user(port) for port in SERVER_PORTS},
        repository=repository,
        num_services=_num_models(repository),
        repository_problems=_repository_problems(repository),
        gpu=None if toolchain is None else look_at_gpu_toolchain(toolchain, repository, in_container=in_container),
    )


def look_at_gpu_toolchain(toolchain: GpuToolchain, repository: Path, *, in_container: bool) -> GpuSurroundings:
    """Read what a GPU toolchain is judged by.

    Raises:
        ToolchainError: the image is to be looked into, and is not here or does not start.
    """
    from huggingface_hub import get_token

    there = containers.look(toolchain.images)
    image = _image_to_open(there, toolchain) if in_container else None
    engine = there.engine
    return GpuSurroundings(
        containers=there,
        installation=probe.look() if image is None or engine is None else containers.look_inside(engine, image),
        image=image,
        has_hf_token=get_token() is not None,
        stamps=_stamps(repository),
    )


def _image_to_open(there: Containers, toolchain: GpuToolchain) -> str:
    image = next(iter(there.images), None)
    if there.problem is not None:
        message = f"{there.engine}: {there.problem}"
        raise ToolchainError(message, hint="`scalellm-trt doctor` without --container says what is missing.")
    if image is None:
        message = f"{toolchain.image} is not here" if there.engine else "there is no container engine"
        raise ToolchainError(message, hint=f"{there.engine or 'docker'} pull {toolchain.image}")
    return image


def _stamps(repository: Path) -> Mapping[str, Stamp]:
    try:
        services = repository_manifest.read(repository).services if repository.is_dir() else {}
    except ArtefactError:
        # The check of the repository says what is wrong with it.
        return {}
    stamps = {name: record.current.stamp for name, record in services.items()}
    return {name: stamp for name, stamp in stamps.items() if stamp is not None}


def _wanted_packages() -> set[str]:
    hosts = [row.host for row in facts.toolchains().values() if row.host]
    return {name for row in hosts for name in [*row.packages, *row.quantize_packages]}


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _tritonserver() -> tuple[str | None, ToolchainError | None]:
    try:
        found = binary.find()
    except ToolchainError as error:
        return None, error
    return f"{found.executable} ({found.origin})", None


def _port_user(port: int) -> str | None:
    return None if ports.is_free(port) else ports.owner_of(port) or "another process"


def _num_models(repository: Path) -> int | None:
    if not repository.is_dir():
        return None
    return sum(1 for _ in repository.glob("*/config.pbtxt"))


def _repository_problems(repository: Path) -> tuple[str, ...]:
    if not repository.is_dir():
        return ()
    try:
        return tuple(repository_check.problems(repository))
    except ArtefactError as error:
        return (error.message,)

"""What the doctor looks at, read once: machine, installed packages, programs, ports, the model repository."""

from __future__ import annotations

import importlib.metadata
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scalellm_trt import detect, facts
from scalellm_trt.errors import ArtefactError, ToolchainError
from scalellm_trt.triton import binary, ports, repository_check

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from scalellm_trt.detect import Machine

SERVER_PORTS = (8000, 8001, 8002)
CONTAINER_ENGINES = ("docker", "podman")


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


def look(folder: Path, repository: Path) -> Surroundings:
    """Read what the checks need; nothing is changed but the cache folder of the embedded server.

    Args:
        folder: where artefacts are written.
        repository: the model repository that `serve` would use.
    """
    server, problem = _tritonserver()
    engine = next((name for name in CONTAINER_ENGINES if shutil.which(name)), None)
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
    )


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

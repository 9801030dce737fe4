"""A model of a built repository, and a tritonserver of one's own over it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

from scalellm_trt.runtime import settings as service_settings
from scalellm_trt.triton import binary, ports, repository_check, repository_manifest, server
from scalellm_trt.triton.server_command import ServerOptions, new_shm_prefix

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from scalellm_trt.runtime.settings import ServiceSettings

READY_TIMEOUT_S = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """A python-hosted text model.

    Attributes:
        directory: its directory in the repository.
        engine_digest: SHA-256 of the engine's files, from the repository's manifest.
    """

    name: str
    directory: Path
    engine_digest: str

    @property
    def service_json(self) -> Path:
        """The settings that it is served with."""
        return self.directory / "1" / service_settings.FILE_NAME

    @property
    def settings(self) -> ServiceSettings:
        """What `service_json` says."""
        return service_settings.read(self.service_json)

    @property
    def engine_directory(self) -> Path:
        """The engine's files and tokenizer.json."""
        return self.service_json.parent / self.settings.engine_directory


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A tritonserver that answers."""

    url: str
    pid: int


def find(repository: Path, name: str | None = None) -> ServedModel:
    """Return the model called `name`, or the repository's only one.

    Raises:
        SystemExit: there is no such model, or the choice is the user's to make.
    """
    records = repository_manifest.read(repository).services
    if name is None and len(records) == 1:
        name = next(iter(records))
    if name is None or name not in records:
        message = f"{repository}: name one of its services by --model: {', '.join(records) or 'it has none; build one'}"
        raise SystemExit(message)
    digest = records[name].current.engine_digest
    return ServedModel(name=name, directory=repository / name, engine_digest=digest)


@contextlib.contextmanager
def running(repository: Path, log: Path, verify: Callable[[Path], None] = repository_check.check) -> Iterator[Running]:
    """Serve `repository` on free ports until the block ends."""
    http_port, grpc_port, metrics_port = ports.free_ports(3)
    options = ServerOptions(
        repository=repository,
        shm_prefix=new_shm_prefix(),
        http_port=http_port,
        grpc_port=grpc_port,
        metrics_port=metrics_port,
        exit_timeout_s=5,
    )
    with server.start(binary.find(), options, log=log, verify=verify) as process:
        endpoint = process.wait_ready(READY_TIMEOUT_S)
        yield Running(url=endpoint.grpc_address, pid=process.pid)


def process_tree(pid: int) -> list[psutil.Process]:
    """Return a process and everything that it started."""
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def cpu_s(pid: int) -> float:
    """Return the CPU seconds that a process and its children have used so far."""
    times = [process.cpu_times() for process in process_tree(pid)]
    return float(sum(time.user + time.system for time in times))

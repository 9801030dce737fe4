"""The argv of a tritonserver: pure functions, so that what is run can be shown, tested and passed through."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from scalellm_trt.triton.binary import ServerBinary

LOOPBACK = "127.0.0.1"
HTTP_PORT, GRPC_PORT, METRICS_PORT = 8000, 8001, 8002
STUB_TIMEOUT_S = 120  # a cold disk or a busy machine needs more than Triton's 30 s to start an interpreter
SHM_PREFIX_KEY = "shm-region-prefix-name"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """How to run a server.

    Attributes:
        repository: the model repository.
        address: what HTTP, gRPC and metrics listen on.
        http_port, grpc_port, metrics_port: TCP ports.
        shm_prefix: begins the names of this server's shared memory; no two servers may have the same.
        exit_timeout_s: how long running requests may take to end once a stop was asked for.
        log_verbose: Triton's verbosity, 0 for none.
    """

    repository: Path
    shm_prefix: str
    address: str = LOOPBACK
    http_port: int = HTTP_PORT
    grpc_port: int = GRPC_PORT
    metrics_port: int = METRICS_PORT
    exit_timeout_s: int = 30
    log_verbose: int = 0

    @property
    def ports(self) -> dict[str, int]:
        """Each port by its option's name."""
        return {"--http-port": self.http_port, "--grpc-port": self.grpc_port, "--metrics-port": self.metrics_port}


def new_shm_prefix() -> str:
    """Return a name that no other server on this machine has."""
    return f"scalellm_{secrets.token_hex(4)}_"


def command(binary: ServerBinary, options: ServerOptions) -> list[str]:
    """Return the argv that serves `options.repository`."""
    arguments = [
        f"--model-repository={options.repository}",
        f"--http-address={options.address}",
        f"--http-port={options.http_port}",
        f"--grpc-address={options.address}",
        f"--grpc-port={options.grpc_port}",
        f"--metrics-address={options.address}",
        f"--metrics-port={options.metrics_port}",
        f"--exit-timeout-secs={options.exit_timeout_s}",
    ]
    if options.log_verbose:
        arguments.append(f"--log-verbose={options.log_verbose}")
    return complete(arguments, binary, options.shm_prefix)


def complete(arguments: Sequence[str], binary: ServerBinary, shm_prefix: str) -> list[str]:
    """Return the argv of a user's arguments, passed through as they are, with only what is missing added."""
    added = [
        f"{option}={LOOPBACK}"
        for option in ("--http-address", "--grpc-address", "--metrics-address")
        if not _has(arguments, option)
    ]
    if binary.backend_directory is not None and not _has(arguments, "--backend-directory"):
        added.append(f"--backend-directory={binary.backend_directory}")
    settings = {SHM_PREFIX_KEY: shm_prefix, "stub-timeout-seconds": str(STUB_TIMEOUT_S)}
    added += [
        f"--backend-config=python,{key}={value}"
        for key, value in settings.items()
        if not any(key in argument for argument in arguments)
    ]
    return [str(binary.executable), *arguments, *added]


def _has(arguments: Iterable[str], option: str) -> bool:
    return any(argument == option or argument.startswith(f"{option}=") for argument in arguments)

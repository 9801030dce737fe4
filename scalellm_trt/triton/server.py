"""Run a tritonserver: start it, wait until it is ready or say why it is not, stop it and leave nothing behind."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from scalellm_trt import process
from scalellm_trt.artefacts.types import Endpoint
from scalellm_trt.errors import ServerNotReadyError, StageError, ToolchainError
from scalellm_trt.process import watchdog
from scalellm_trt.triton import ports, repository_check, server_log
from scalellm_trt.triton.launch import Launch
from scalellm_trt.triton.server_command import command

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from scalellm_trt.triton.binary import ServerBinary
    from scalellm_trt.triton.server_command import ServerOptions

    Progress = Callable[[str, float], None]
    """Called with what is going on and the seconds since the start."""

POLL_S = 0.1
HTTP_TIMEOUT_S = 2.0
KILL_GRACE_S = 2.0
LAST_TIMEOUT_S = 60.0
MAX_LOG_BYTES_READ = 1 << 20


def start(
    binary: ServerBinary,
    options: ServerOptions,
    *,
    log: Path,
    launch: Launch | None = None,
    verify: Callable[[Path], None] = repository_check.check,
) -> RunningServer:
    """Start `binary` over `options.repository` in a session of its own, with its output in `log`.

    A watchdog ends the server and all its children should this process end without `stop`, by kill -9 too.

    Args:
        binary: from `binary.find`.
        options: what to serve and where.
        log: what an earlier server wrote there is kept as `LOG.1`.
        launch: from `launch.plan`; None starts the program as it is.
        verify: called with the repository first; raises what is wrong with it.

    Raises:
        ArtefactError: from `verify`.
        ServerNotReadyError: a port is taken.
        ToolchainError: the program cannot be executed.
    """
    verify(options.repository)
    check_ports(options)
    if log.exists():
        log.replace(log.with_name(f"{log.name}.1"))
    launch = launch or Launch(mode="plain", argv=tuple(command(binary, options)))
    child = process.start(launch.argv, log=log, env={**binary.environment(os.environ), **launch.env})
    try:
        guard = process.start(
            [
                *(sys.executable, "-I", "-S", watchdog.__file__),
                *(str(os.getpid()), str(child.pid), str(options.exit_timeout_s + KILL_GRACE_S), options.shm_prefix),
                *launch.last,
            ],
            log=Path(os.devnull),
        )
    except BaseException:
        process.stop(child)
        raise
    return RunningServer(child, guard, options, log, launch.last)


class RunningServer:
    """A started tritonserver; leaving the context stops it."""

    def __init__(
        self,
        child: subprocess.Popen[bytes],
        guard: subprocess.Popen[bytes],
        options: ServerOptions,
        log: Path,
        last: tuple[str, ...],
    ) -> None:
        """Take over a started child and its watchdog; `last` is run when both have ended."""
        self._child = child
        self._guard = guard
        self._options = options
        self._last = last
        self._started = time.monotonic()
        self._model_names: tuple[str, ...] = ()
        self.log = log

    @property
    def pid(self) -> int:
        """The server's process id, which is its process group's too."""
        return self._child.pid

    @property
    def endpoint(self) -> Endpoint:
        """Where it listens, and which models it serves: none before it is ready."""
        options = self._options
        return Endpoint(
            grpc_address=f"{options.address}:{options.grpc_port}",
            http_address=f"{options.address}:{options.http_port}",
            metrics_address=f"{options.address}:{options.metrics_port}",
            model_names=self._model_names,
            pid=self.pid,
        )

    def wait_ready(self, timeout_s: float, progress: Progress | None = None) -> Endpoint:
        """Return once every model of the repository can be asked.

        Raises:
            ServerNotReadyError: the server ended, or did not become ready in time; with the reason, the log's
                last lines and its path. The server is stopped then.
        """
        while True:
            elapsed_s = time.monotonic() - self._started
            if self._child.poll() is not None:
                message = f"tritonserver {self._how_it_ended()} before it was ready"
                raise self._failure(message)
            if self._answers_ready():
                self._model_names = self._list_models()
                return self.endpoint
            if progress is not None:
                progress(self._activity(), elapsed_s)
            if elapsed_s > timeout_s:
                message = f"tritonserver was not ready within {timeout_s:g} s: {self._activity()}"
                raise self._failure(message)
            time.sleep(POLL_S)

    def wait(self) -> None:
        """Return when the server has ended by itself with exit code 0.

        Raises:
            ServerNotReadyError: it crashed; with the log's last lines and its path.
        """
        if self._child.wait() != 0:
            message = f"tritonserver {self._how_it_ended()}"
            raise self._failure(message)

    def check(self) -> None:
        """Return while the server runs.

        Raises:
            ServerNotReadyError: it has ended; with the log's last lines and its path.
        """
        if self._child.poll() is not None:
            message = f"tritonserver {self._how_it_ended()}"
            raise self._failure(message)

    def stop(self) -> None:
        """Let running requests end within the exit timeout, then end the server and everything that it started."""
        with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
            if self._child.poll() is None:
                os.kill(self._child.pid, signal.SIGTERM)
                self._child.wait(timeout=self._options.exit_timeout_s + KILL_GRACE_S)
        self.kill()

    def kill(self) -> None:
        """End the server and everything that it started, without letting requests end."""
        watchdog.kill_session(self._child.pid)
        self._child.wait()
        # Before the watchdog, which would do it should we be killed meanwhile.
        if self._last:
            with contextlib.suppress(StageError, ToolchainError):
                process.output(self._last, timeout_s=LAST_TIMEOUT_S)
        process.stop(self._guard)
        watchdog.remove_shared_memory(self._options.shm_prefix)

    def __enter__(self) -> RunningServer:
        """Return the server."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the server; a second interrupt while it lets requests end kills it."""
        try:
            self.stop()
        except BaseException:
            self.kill()
            raise

    def _answers_ready(self) -> bool:
        return self._ask("GET", "/v2/health/ready") is not None

    def _list_models(self) -> tuple[str, ...]:
        body = self._ask("POST", "/v2/repository/index")
        models = json.loads(body) if body else []
        return tuple(sorted(model["name"] for model in models if model.get("state") == "READY"))

    def _ask(self, method: str, path: str) -> bytes | None:
        """Return the body of a good answer; None when there is none."""
        options = self._options
        connection = http.client.HTTPConnection(options.address, options.http_port, timeout=HTTP_TIMEOUT_S)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()
        return body if response.status == http.HTTPStatus.OK else None

    def _activity(self) -> str:
        loading, loaded = server_log.models_in_progress(self._log_lines())
        waiting = [name for name in loading if name not in loaded]
        if waiting:
            return f"loading {', '.join(waiting)}"
        return "models are loaded, opening ports" if loaded else "starting"

    def _log_lines(self) -> list[str]:
        try:
            with self.log.open("rb") as stream:
                stream.seek(max(0, os.fstat(stream.fileno()).st_size - MAX_LOG_BYTES_READ))
                return stream.read().decode(errors="replace").splitlines()
        except OSError:
            return []

    def _how_it_ended(self) -> str:
        code = self._child.returncode
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"

    def _failure(self, what: str) -> ServerNotReadyError:
        """Stop the server, then put together what happened, the reasons in the log and its last lines."""
        self.kill()
        lines = self._log_lines()
        reasons = "".join(f"\n  - {reason}" for reason in server_log.failure_reasons(lines))
        ending = "".join(f"\n  | {line}" for line in server_log.last_lines(lines))
        return ServerNotReadyError(f"{what}{reasons}\n  Its log ends:{ending}", hint=f"Log: {self.log}")


def check_ports(options: ServerOptions) -> None:
    """Return when every port is free.

    Raises:
        ServerNotReadyError: one is taken; with its owner, and ports that are free.
    """
    taken = []
    for option, port in options.ports.items():
        if not ports.is_free(port, options.address):
            owner = ports.owner_of(port)
            taken.append(f"{options.address}:{port} ({option}) is in use" + (f" by {owner}" if owner else ""))
    if taken:
        free = ports.free_or_other(list(options.ports.values()))
        suggestion = " ".join(f"{option} {port}" for option, port in zip(options.ports, free, strict=True))
        raise ServerNotReadyError("; ".join(taken), hint=f"Stop it, or take other ports: {suggestion}")

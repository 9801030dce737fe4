"""`serve`: run tritonserver over the repository until it is told to stop."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from scalellm_trt.artefacts.types import Endpoint
    from scalellm_trt.triton.server import Progress, RunningServer
    from scalellm_trt.triton.server_command import ServerOptions

GrpcPort = Annotated[int, typer.Option(min=1, max=65535, help="Port of the gRPC API, which clients use.")]
HttpPort = Annotated[int, typer.Option(min=1, max=65535, help="Port of the HTTP API.")]
MetricsPort = Annotated[int, typer.Option(min=1, max=65535, help="Port of the metrics for Prometheus.")]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(serve)


def serve(
    repository: Annotated[Path, typer.Option(help="The model repository.")] = Path("triton_repo"),
    grpc_port: GrpcPort = 8001,
    http_port: HttpPort = 8000,
    metrics_port: MetricsPort = 8002,
    address: Annotated[str, typer.Option(help="What to listen on; 0.0.0.0 opens it to the network.")] = "127.0.0.1",
    timeout: Annotated[float, typer.Option(min=1, help="Seconds to wait until every model is loaded.")] = 600.0,
    exit_timeout: Annotated[int, typer.Option(min=0, help="Seconds that running requests may take at the end.")] = 30,
    builds: Annotated[Path, typer.Option(help="Where artefacts, cache and logs are kept.")] = Path("builds"),
    container: Annotated[
        bool, typer.Option("--container", help="Run the tritonserver of the toolchain's image, with docker or podman.")
    ] = False,
    orchestrator: Annotated[
        bool, typer.Option("--orchestrator", help="Engines over several GPUs: one server that spawns their workers.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the endpoint as JSON once it is ready.")] = False,
) -> None:
    """Serve every model of the repository with tritonserver, until Ctrl-C or SIGTERM.

    tritonserver is taken from the PATH, else from the PyPI wheel; with --container from the image that the services
    were built for. An engine over several GPUs gets a server per GPU, under mpirun. Exit code 7 with the reason when it
    does not come up, or crashes later.
    """
    from scalellm_trt.triton.server_command import ServerOptions, new_shm_prefix

    options = ServerOptions(
        repository=repository,
        shm_prefix=new_shm_prefix(),
        address=address,
        http_port=http_port,
        grpc_port=grpc_port,
        metrics_port=metrics_port,
        exit_timeout_s=exit_timeout,
    )
    how = HowToStart(builds=builds, timeout_s=timeout, in_container=container, wants_orchestrator=orchestrator)
    with stop_signals(), ready_server(options, how) as running:
        # Ctrl-C is how a server is ended: no failure any more once somebody was told that it is ready.
        try:
            _announce(running.endpoint, running.log, as_json=as_json)
            running.wait()
        except KeyboardInterrupt:
            left = f"running requests have {exit_timeout} s to end, Ctrl-C again ends them now"
            print(f"stopping: {left}", file=sys.stderr)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HowToStart:
    """What a command says of a server beside its options; see `serve`."""

    builds: Path
    timeout_s: float
    in_container: bool
    wants_orchestrator: bool = False


@contextlib.contextmanager
def ready_server(options: ServerOptions, how: HowToStart) -> Iterator[RunningServer]:
    """Run a tritonserver until the block ends; the block begins when every model is loaded.

    Raises:
        ScaleLLMError: as `serve` says.
    """
    from scalellm_trt.backends.container import require_engine
    from scalellm_trt.triton import binary, server, server_image, serving, stamp_check
    from scalellm_trt.triton import repository as repositories

    log = how.builds / ".cache" / "logs" / f"tritonserver-{options.grpc_port}.log"
    state_dir = repositories.state_dir_for(options.repository, how.builds / ".cache" / "repository")
    probe_log = log.with_name("probe.log")
    if how.in_container:
        program = server_image.find(options.repository, require_engine(), probe_log)
    else:
        program = binary.find()
        stamp_check.check(options.repository, lambda: stamp_check.local_machine(probe_log))
    engines, launch = serving.prepare(program, options, state_dir=state_dir, wants_orchestrator=how.wants_orchestrator)
    with server.start(program, options, log=log, launch=launch) as running:
        with _progress_line() as progress:
            running.wait_ready(how.timeout_s, progress)
        serving.record(engines, log, how.builds)
        yield running


@contextlib.contextmanager
def stop_signals() -> Iterator[None]:
    """Let SIGTERM and a closed terminal mean what Ctrl-C means, so that the server is always stopped."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _progress_line() -> Iterator[Progress]:
    """Show the activity: one line that changes on a terminal, a line for each new activity elsewhere."""
    console = Console(stderr=True)
    if console.is_terminal:
        with console.status("starting tritonserver") as status:
            yield lambda activity, elapsed_s: status.update(f"tritonserver: {activity} ({elapsed_s:.0f} s)")
        return
    shown: list[str] = []

    def show(activity: str, elapsed_s: float) -> None:
        if activity not in shown:
            shown.append(activity)
            console.print(f"tritonserver: {activity} ({elapsed_s:.0f} s)", soft_wrap=True, highlight=False)

    yield show


def _announce(endpoint: Endpoint, log: Path, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({**dataclasses.asdict(endpoint), "log": str(log)}), flush=True)
        return
    print(f"ready: {', '.join(endpoint.model_names)}")
    print(f"  gRPC {endpoint.grpc_address}  HTTP {endpoint.http_address}  metrics {endpoint.metrics_address}")
    print(f"  pid {endpoint.pid}, log {log}")
    print(f'  try: scalellm-trt infer "Hello" --url {endpoint.grpc_address}    stop: Ctrl-C', flush=True)

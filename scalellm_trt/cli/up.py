"""`up R`: build, serve and gateway in one, until Ctrl-C stops them in the reverse order."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scalellm_trt.cli import tables
from scalellm_trt.cli.build import BuildsOption, RecipeArgument, RepositoryOption  # noqa: TC001  typer reads them
from scalellm_trt.cli.gateway import AdminPortOption, require_gateway
from scalellm_trt.cli.serve import GrpcPort, HowToStart, HttpPort, MetricsPort, ready_server, stop_signals
from scalellm_trt.cli.timeline import timeline

if TYPE_CHECKING:
    from rich.console import Console

    from scalellm_trt.gateway.child import RunningGateway
    from scalellm_trt.gateway.config_file import Setup
    from scalellm_trt.recipe.tree import KeyPath, Scalar
    from scalellm_trt.triton.server import RunningServer

POLL_S = 0.2
GATEWAY_TIMEOUT_S = 60.0
STOP_GRACE_S = 10.0


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(up)


def up(
    recipe: RecipeArgument,
    config: Annotated[
        Path | None, typer.Option(help="The gateway's YAML file; see docs/reference/gateway.md.", show_default=False)
    ] = None,
    host: Annotated[str | None, typer.Option(help="What the gateway listens on, else 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="The gateway's port, else 2345.")] = None,
    admin_port: AdminPortOption = None,
    grpc_port: GrpcPort = 8001,
    http_port: HttpPort = 8000,
    metrics_port: MetricsPort = 8002,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds to wait until every model is loaded.")] = 600.0,
    container: Annotated[
        bool, typer.Option("--container", help="Compile and serve inside the toolchain's image.")
    ] = False,
    builds: BuildsOption = Path("builds"),
    repository: RepositoryOption = Path("triton_repo"),
) -> None:
    """Build a recipe, serve it, and put the gateway in front: one command to an OpenAI API.

    Ctrl-C stops all in order: the gateway lets open answers end, then the server. When one part fails, the others are
    ended, and the exit code is that part's.
    """
    from scalellm_trt.triton import server
    from scalellm_trt.triton.server_command import ServerOptions, new_shm_prefix

    require_gateway()
    url = f"127.0.0.1:{grpc_port}"
    given: dict[KeyPath, Scalar] = {("listen", "host"): host, ("listen", "port"): port, ("admin", "port"): admin_port}
    setup = _gateway_setup(config, given, repository, url)
    options = ServerOptions(
        repository=repository,
        shm_prefix=new_shm_prefix(),
        http_port=http_port,
        grpc_port=grpc_port,
        metrics_port=metrics_port,
    )
    console = tables.console(stderr=True)
    with stop_signals():
        # What needs no model is checked before minutes are spent on one.
        server.check_ports(options)
        _build(console, recipe, builds, repository, in_container=container)
        how = HowToStart(builds=builds, timeout_s=timeout, in_container=container)
        with ready_server(options, how) as running, _start_gateway(setup, config, builds) as gateway:
            address = gateway.wait_ready(GATEWAY_TIMEOUT_S)
            # Ctrl-C is how it is ended: no failure any more once somebody was told that it is ready.
            try:
                _announce(address, running, gateway)
                _watch(running, gateway)
            except KeyboardInterrupt:
                print("stopping: open answers may end, Ctrl-C again ends them now", file=sys.stderr)


def _gateway_setup(config: Path | None, given: dict[KeyPath, Scalar], repository: Path, url: str) -> Setup:
    from scalellm_trt.gateway import config_file, listening

    overrides: dict[KeyPath, Scalar] = {key: value for key, value in given.items() if value is not None}
    overrides |= {("repository",): str(repository), ("server", "url"): url}
    setup = config_file.load(config, overrides, None, os.environ.get("SCALELLM_ADMIN_KEY"))
    with listening.listen(setup.options), listening.listen_admin(setup.options):
        pass
    return setup


def _build(console: Console, recipe: Path, builds: Path, repository: Path, *, in_container: bool) -> None:
    from scalellm_trt import pipeline
    from scalellm_trt.backends.container import require_engine

    workspace = pipeline.Workspace(
        builds_dir=builds, repository_dir=repository, container=require_engine() if in_container else None
    )
    with timeline(console) as reporter:
        report = pipeline.build(recipe, workspace=workspace, reporter=reporter)
    what = f"{report.num_stages_run} stages run" if report.num_stages_run else "nothing changed, 0 stages run"
    console.print(f"{report.name}: {what}", highlight=False)


def _start_gateway(setup: Setup, config: Path | None, builds: Path) -> RunningGateway:
    from scalellm_trt.gateway import child

    options = ["--repository", str(setup.repository), "--url", setup.options.servers[0].url]
    options += ["--host", setup.options.host, "--port", str(setup.options.port)]
    if setup.options.admin_port is not None:
        options += ["--admin-port", str(setup.options.admin_port)]
    options += [] if config is None else ["--config", str(config)]
    log = builds / ".cache" / "logs" / f"gateway-{setup.options.port}.log"
    return child.start(options, log=log, stop_timeout_s=setup.options.shutdown_timeout_s + STOP_GRACE_S)


def _watch(running: RunningServer, gateway: RunningGateway) -> None:
    """Return never: a part that ends raises."""
    while True:
        running.check()
        gateway.check()
        time.sleep(POLL_S)


def _announce(address: str, running: RunningServer, gateway: RunningGateway) -> None:
    endpoint = running.endpoint
    shown = address.replace("//127.0.0.1:", "//localhost:")
    print(f"ready: {', '.join(endpoint.model_names)} at {shown}/v1")
    print(f"  tritonserver: gRPC {endpoint.grpc_address}, log {running.log}")
    print(f"  gateway: log {gateway.log}")
    if gateway.page is not None:
        print(f"  page: {gateway.page}")
    where = shown.removeprefix("http://")
    print(f"""  try: curl -XPOST {where}/predict -d '{{"text": "Hello"}}'    stop: Ctrl-C""", flush=True)

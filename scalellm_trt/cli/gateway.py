"""`gateway`: OpenAI's API in front of a running tritonserver until it is told to stop."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scalellm_trt.cli.serve import stop_signals
from scalellm_trt.errors import ToolchainError


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(gateway)


def gateway(
    repository: Annotated[
        Path, typer.Option(help="Where tokenizers and chat templates are read: the repository that is served.")
    ] = Path("triton_repo"),
    url: Annotated[str, typer.Option(help="gRPC address of the server, host:port.")] = "127.0.0.1:8001",
    host: Annotated[str, typer.Option(help="What to listen on; 0.0.0.0 opens it to the network.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the HTTP API; 0 takes a free one.")] = 2345,
    api_key: Annotated[
        str | None,
        typer.Option(
            envvar="SCALELLM_API_KEY",
            help="Key that clients must send. SCALELLM_API_KEY in the environment keeps it out of the process list.",
        ),
    ] = None,
    max_body_bytes: Annotated[int, typer.Option(min=1, help="Longest request body.")] = 4 * 1024 * 1024,
    max_prompt_tokens: Annotated[
        int | None, typer.Option(min=1, help="Longest prompt; without it the engine's own limit.")
    ] = None,
    default_max_tokens: Annotated[
        int, typer.Option(min=1, help="New tokens of a chat that does not say how many it wants.")
    ] = 512,
    channels: Annotated[int, typer.Option(min=1, max=64, help="gRPC connections to the server.")] = 4,
) -> None:
    """Serve OpenAI's API for the models of a running tritonserver, until Ctrl-C or SIGTERM.

    Logs are JSON on stderr, a line for each request. The server need not be there yet: /health/ready tells.
    """
    try:
        from scalellm_trt.gateway import served, server
        from scalellm_trt.gateway.options import GatewayOptions
    except ModuleNotFoundError as error:
        message = f"the gateway needs {error.name}, which is not installed"
        raise ToolchainError(message, hint="Install it: pip install 'scalellm-trt[gateway]'") from error

    options = GatewayOptions(
        url=url,
        host=host,
        port=port,
        num_channels=channels,
        max_body_bytes=max_body_bytes,
        max_prompt_tokens=max_prompt_tokens,
        default_max_tokens=default_max_tokens,
        api_key=api_key or None,
    )
    models = served.load(repository)

    def announce(address: str) -> None:
        print(f"gateway: {address}/v1 offers {', '.join(models)}, from tritonserver at {url}", flush=True)

    with stop_signals():
        # Ctrl-C is how a gateway is ended: no failure.
        try:
            server.run(models, options, announce)
        except KeyboardInterrupt:
            return

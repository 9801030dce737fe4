"""`gateway`: OpenAI's API in front of a running tritonserver until it is told to stop."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scalellm_trt.cli.serve import stop_signals
from scalellm_trt.errors import ToolchainError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scalellm_trt.gateway.config_file import Setup
    from scalellm_trt.recipe.tree import KeyPath, Scalar

ConfigOption = Annotated[
    Path | None,
    typer.Option(help="YAML file, see docs/reference/gateway.md; the options below win over it.", show_default=False),
]
KeyOption = Annotated[
    str | None,
    typer.Option(
        envvar="SCALELLM_API_KEY",
        help="Key that clients may send. SCALELLM_API_KEY in the environment keeps it out of the process list.",
    ),
]


AdminPortOption = Annotated[
    int | None,
    typer.Option(min=0, max=65535, help="Port of the operator's page, on loopback; else the one after --port."),
]
AdminKeyOption = Annotated[
    str | None,
    typer.Option(
        envvar="SCALELLM_ADMIN_KEY",
        help="Key that the operator's page asks for. SCALELLM_ADMIN_KEY in the environment keeps it out of the process "
        "list.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(gateway)


def gateway(
    config: ConfigOption = None,
    repository: Annotated[
        Path | None, typer.Option(help="The repository that is served: tokenizers, chat templates. Else triton_repo.")
    ] = None,
    url: Annotated[str | None, typer.Option(help="gRPC address of the server, else 127.0.0.1:8001.")] = None,
    host: Annotated[
        str | None, typer.Option(help="What to listen on, else 127.0.0.1; 0.0.0.0 opens it to the network.")
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port of the HTTP API, else 2345; 0 takes a free one.")
    ] = None,
    admin_port: AdminPortOption = None,
    workers: Annotated[
        int | None, typer.Option(min=1, max=256, help="Processes that share the port, else 1; one per core to use.")
    ] = None,
    keys: Annotated[Path | None, typer.Option(help="File of hashed API keys, made by key add.")] = None,
    api_key: KeyOption = None,
    admin_key: AdminKeyOption = None,
    max_body_bytes: Annotated[int | None, typer.Option(min=1, help="Longest request body, else 4 MiB.")] = None,
    max_prompt_tokens: Annotated[
        int | None, typer.Option(min=1, help="Longest prompt; without it the engine's own limit.")
    ] = None,
    default_max_tokens: Annotated[
        int | None, typer.Option(min=1, help="New tokens of a chat that does not say how many it wants, else 512.")
    ] = None,
    upstream: Annotated[
        str | None, typer.Option(help="How the server is spoken to: http2, our own client, or grpc, the library.")
    ] = None,
    channels: Annotated[int | None, typer.Option(min=1, max=64, help="gRPC connections to the server, else 4.")] = None,
) -> None:
    """Serve OpenAI's API for the models of a running tritonserver, until Ctrl-C or SIGTERM.

    Logs are JSON on stderr, a line for each request. The server need not be there yet: /health/ready tells.
    """
    overrides: dict[KeyPath, Scalar | Path] = {
        ("repository",): repository,
        ("server", "url"): url,
        ("server", "upstream"): upstream,
        ("server", "channels"): channels,
        ("listen", "host"): host,
        ("listen", "port"): port,
        ("admin", "port"): admin_port,
        ("workers",): workers,
        ("keys", "file"): keys,
        ("limits", "max_body_bytes"): max_body_bytes,
        ("limits", "max_prompt_tokens"): max_prompt_tokens,
        ("limits", "default_max_tokens"): default_max_tokens,
    }
    with stop_signals():
        # Ctrl-C is how a gateway is ended: no failure.
        try:
            _run(config, overrides, api_key, admin_key)
        except KeyboardInterrupt:
            return


def require_gateway() -> None:
    """Return where the extra `gateway` is installed.

    Raises:
        ToolchainError: a package is missing.
    """
    try:
        import scalellm_trt.gateway.launch  # noqa: F401
    except ModuleNotFoundError as error:
        message = f"the gateway needs {error.name}, which is not installed"
        raise ToolchainError(message, hint="Install it: pip install 'scalellm-trt[gateway]'") from error


def _run(
    config: Path | None, overrides: Mapping[KeyPath, Scalar | Path], api_key: str | None, admin_key: str | None
) -> None:
    require_gateway()
    from scalellm_trt.gateway import config_file, launch, served

    given = {key: str(value) if isinstance(value, Path) else value for key, value in overrides.items()}
    given_only = {key: value for key, value in given.items() if value is not None}

    def load() -> Setup:
        return config_file.load(config, given_only, api_key, admin_key)

    setup = load()
    models = served.load(setup.repository)

    def announce(address: str, page: str | None) -> None:
        # In one write: `up` reads both at once.
        print(_announcement(address, models, setup) + ("" if page is None else f"\n  page: {page}"), flush=True)

    launch.run(models, setup, announce, load)


def _announcement(address: str, models: Mapping[str, object], setup: Setup) -> str:
    servers = setup.options.servers
    where = f"{len(servers)} servers: " if len(servers) > 1 else "tritonserver at "
    urls = ", ".join(server.url for server in servers) or "servers that are looked up"
    return f"gateway: {address}/v1 offers {', '.join(models)}, from {where}{urls}"

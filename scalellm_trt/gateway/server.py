"""Run the gateway's HTTP server in this process until it is told to stop."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from scalellm_trt.gateway import channels, listening, request_log
from scalellm_trt.gateway.app import make_app
from scalellm_trt.gateway.http_protocol import limited

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable, Mapping

    from starlette.types import ASGIApp

    from scalellm_trt.gateway.config_file import Setup
    from scalellm_trt.gateway.options import GatewayOptions
    from scalellm_trt.gateway.served import GatewayModel


def run(models: Mapping[str, GatewayModel], setup: Setup, on_listening: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM; `on_listening` is told the address once connections are taken.

    Raises:
        RecipeError: the address cannot be listened on, or a certificate is not usable.
        KeyboardInterrupt: after the end that a signal asked for.
    """
    options = setup.options
    context = None if options.listen_tls is None else listening.tls_context(options.listen_tls)
    channels.check(options.server_tls)
    request_log.set_up(setup.log_level)
    app = make_app(models, options)
    with listening.listen(options) as listener:
        on_listening(address(options, listener))
        serve(app, options, listener, context)


def address(options: GatewayOptions, listener: socket.socket) -> str:
    """Return the URL of a bound socket."""
    host = f"[{options.host}]" if ":" in options.host else options.host
    return f"{'http' if options.listen_tls is None else 'https'}://{host}:{listener.getsockname()[1]}"


def serve(app: ASGIApp, options: GatewayOptions, listener: socket.socket, context: ssl.SSLContext | None) -> None:
    """Serve on a socket that listens; as `run`."""
    import uvicorn

    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=limited(options),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=math.ceil(options.idle_timeout_s),
        timeout_graceful_shutdown=math.ceil(options.shutdown_timeout_s),
        ssl_context_factory=None if context is None else lambda config, default: context,
    )
    uvicorn.Server(config).run(sockets=[listener])

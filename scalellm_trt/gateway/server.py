"""Run the gateway's HTTP server in this process until it is told to stop."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final

from scalellm_trt.errors import Problem, RecipeError
from scalellm_trt.gateway import request_log
from scalellm_trt.gateway.app import make_app

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from scalellm_trt.gateway.options import GatewayOptions
    from scalellm_trt.gateway.served import GatewayModel

SHUTDOWN_S: Final = 10
"""Seconds that open answers get to end; what is left is cancelled, on the server too."""
_BACKLOG: Final = 2048


def run(models: Mapping[str, GatewayModel], options: GatewayOptions, on_listening: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM; `on_listening` is told the address once connections are taken.

    Raises:
        RecipeError: the address cannot be listened on.
        KeyboardInterrupt: after the end that a signal asked for.
    """
    import uvicorn

    request_log.set_up()
    with _listen(options) as listener:
        port = listener.getsockname()[1]
        config = uvicorn.Config(
            make_app(models, options),
            loop="uvloop",
            http="httptools",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=SHUTDOWN_S,
        )
        on_listening(f"http://{options.host}:{port}")
        uvicorn.Server(config).run(sockets=[listener])


def _listen(options: GatewayOptions) -> socket.socket:
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((options.host, options.port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        message = f"{options.host}:{options.port} cannot be listened on: {error.strerror or error}"
        raise RecipeError([Problem(key="--port", message=message, hint="Choose another with --port.")]) from error
    return listener

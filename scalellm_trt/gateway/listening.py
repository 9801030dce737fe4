"""Where the gateway listens: a bound socket and, for TLS, what is shown to clients; or a message why not."""

from __future__ import annotations

import errno
import socket
import ssl
from typing import TYPE_CHECKING, Final

from scalellm_trt.errors import Problem, RecipeError

if TYPE_CHECKING:
    from scalellm_trt.gateway.options import GatewayOptions, ListenTls

BACKLOG: Final = 2048


def listen(options: GatewayOptions) -> socket.socket:
    """Return a socket that takes connections.

    Raises:
        RecipeError: the address cannot be listened on.
    """
    listener = bind(options, options.port, is_shared=False)
    listener.listen(BACKLOG)
    return listener


def bind(options: GatewayOptions, port: int, *, is_shared: bool) -> socket.socket:
    """Return a socket bound to `port` that takes no connections yet.

    Args:
        options: say the host.
        port: 0 takes a free one.
        is_shared: others of this user may listen there too, and the kernel spreads connections (SO_REUSEPORT).

    Raises:
        RecipeError: the address cannot be listened on.
    """
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if is_shared:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind((options.host, port))
    except OSError as error:
        listener.close()
        raise _not_bound(options, error) from error
    return listener


def _not_bound(options: GatewayOptions, error: OSError) -> RecipeError:
    message = f"{options.host}:{options.port} cannot be listened on: {error.strerror or error}"
    is_taken = error.errno in (errno.EADDRINUSE, errno.EACCES)
    key, hint = (
        ("listen.port", "Choose another with --port.")
        if is_taken
        else ("listen.host", "Write an address of this machine: 127.0.0.1, 0.0.0.0 or ::.")
    )
    return RecipeError([Problem(key=key, message=message, hint=hint)])


def tls_context(tls: ListenTls) -> ssl.SSLContext:
    """Return what clients are shown.

    Raises:
        RecipeError: certificate or key cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        # A password cannot be asked for here: an empty one makes a locked key fail instead of waiting at the terminal.
        context.load_cert_chain(tls.certificate, tls.key, password="")
    except OSError as error:  # ssl.SSLError is one
        message = f"{tls.certificate} with {tls.key} cannot be used: {error.strerror or error}"
        hint = "Name PEM files of a certificate chain and its private key, without a password."
        raise RecipeError([Problem(key="listen.tls_certificate", message=message, hint=hint)]) from error
    return context


def address(options: GatewayOptions, listener: socket.socket) -> str:
    """Return the URL of a bound socket."""
    host = f"[{options.host}]" if ":" in options.host else options.host
    return f"{'http' if options.listen_tls is None else 'https'}://{host}:{listener.getsockname()[1]}"

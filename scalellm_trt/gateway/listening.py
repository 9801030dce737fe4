"""Where the gateway listens: bound sockets and, for TLS, what is shown to clients; or a message why not."""

from __future__ import annotations

import errno
import ipaddress
import socket
import ssl
from contextlib import nullcontext
from typing import TYPE_CHECKING, Final, Literal

from scalellm_trt.errors import Problem, RecipeError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from scalellm_trt.gateway.options import GatewayOptions, ListenTls

BACKLOG: Final = 2048
_LAST_PORT: Final = 65535
_Listener = Literal["listen", "admin"]
_OPTIONS: Final = {"listen": "--port", "admin": "--admin-port"}


def listen(options: GatewayOptions) -> socket.socket:
    """Return a socket that takes connections.

    Raises:
        RecipeError: the address cannot be listened on.
    """
    listener = bind(options, options.port, is_shared=False)
    listener.listen(BACKLOG)
    return listener


def listen_admin(options: GatewayOptions) -> AbstractContextManager[socket.socket | None]:
    """Return a socket that takes connections to the admin listener; None where there is to be none.

    Raises:
        RecipeError: the address cannot be listened on.
    """
    if not options.has_admin:
        return nullcontext()
    listener = bind_admin(options, admin_port(options), is_shared=False)
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
    return _bind("listen", options.host, port, is_shared=is_shared)


def bind_admin(options: GatewayOptions, port: int, *, is_shared: bool) -> socket.socket:
    """Return a socket for the admin listener; as `bind`.

    Raises:
        RecipeError: the address cannot be listened on.
    """
    return _bind("admin", options.admin_host, port, is_shared=is_shared)


def admin_port(options: GatewayOptions) -> int:
    """Return the port of the admin listener: the one that is asked for, or the neighbour of the gateway's own."""
    if options.admin_port is not None:
        return options.admin_port
    if options.port == 0:
        return 0
    return options.port + 1 if options.port < _LAST_PORT else options.port - 1


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can connect to `host`."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _bind(listener_name: _Listener, host: str, port: int, *, is_shared: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if is_shared:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise _not_bound(listener_name, f"{host}:{port}", error) from error
    return listener


def _not_bound(listener_name: _Listener, place: str, error: OSError) -> RecipeError:
    message = f"{place} cannot be listened on: {error.strerror or error}"
    is_taken = error.errno in (errno.EADDRINUSE, errno.EACCES)
    key, hint = (
        (f"{listener_name}.port", f"Choose another with {_OPTIONS[listener_name]}.")
        if is_taken
        else (f"{listener_name}.host", "Write an address of this machine: 127.0.0.1, 0.0.0.0 or ::.")
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
    return _url(options, options.host, listener)


def page_address(options: GatewayOptions, admin: socket.socket | None) -> str | None:
    """Return the URL of the operator's page, where there is one."""
    return None if admin is None else f"{_url(options, options.admin_host, admin)}/ui/"


def _url(options: GatewayOptions, host: str, listener: socket.socket) -> str:
    shown = f"[{host}]" if ":" in host else host
    return f"{'http' if options.listen_tls is None else 'https'}://{shown}:{listener.getsockname()[1]}"

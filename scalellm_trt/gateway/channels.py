"""A server's address in, one gRPC channel to it out: in clear text or with TLS, never shared with another one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from scalellm_trt.errors import Problem, RecipeError

if TYPE_CHECKING:
    from pathlib import Path

    from scalellm_trt.gateway.options import ServerTls

OPTIONS: Final = (
    # Channels with equal options would share one connection: the pool would be none.
    ("grpc.use_local_subchannel_pool", 1),
    # Left alone, gRPC widens a stream's window to megabytes, which a slow reader would fill; tokens need none of that.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.max_receive_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
)


def open_channel(url: str, tls: ServerTls | None) -> Any:  # noqa: ANN401  grpc has no types
    """Return a channel to `url` (`host:port`) of the running event loop; it connects when it is first used.

    Raises:
        RecipeError: a file of `tls` cannot be read.
    """
    import grpc
    import grpc.aio

    if tls is None:
        return grpc.aio.insecure_channel(url, options=OPTIONS)
    credentials = grpc.ssl_channel_credentials(
        root_certificates=_pem("server.ca", tls.ca),
        private_key=_pem("server.key", tls.key),
        certificate_chain=_pem("server.certificate", tls.certificate),
    )
    return grpc.aio.secure_channel(url, credentials, options=OPTIONS)


def check(tls: ServerTls | None) -> None:
    """Read the files once, so that a wrong path is said at the start and not to the first client.

    Raises:
        RecipeError: one cannot be read, or is no PEM file.
    """
    if tls is not None:
        for key, path in (("server.ca", tls.ca), ("server.certificate", tls.certificate), ("server.key", tls.key)):
            _pem(key, path)


def _pem(key: str, path: Path | None) -> bytes | None:
    if path is None:
        return None
    hint = "Name a PEM file, one that holds -----BEGIN …----- lines."
    try:
        content = path.read_bytes()
    except OSError as error:
        message = f"{path} cannot be read: {error.strerror}"
        raise RecipeError([Problem(key=key, message=message, hint=hint)]) from error
    if b"-----BEGIN " not in content:
        raise RecipeError([Problem(key=key, message=f"{path} is no PEM file", hint=hint)])
    return content

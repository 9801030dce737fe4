"""uvicorn's HTTP protocol with limits: on connections, headers, silence, bodies that never end, readers that stall.

uvicorn over httptools has none of them: a client that drips its headers would be kept for ever, and a header without
end would be collected without end.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, Final, cast

import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from scalellm_trt.gateway import direct_write, request_log
from scalellm_trt.gateway.errors import ApiError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, MutableMapping

    from scalellm_trt.gateway.options import GatewayOptions

BODY_GRACE_S: Final = 2.0
"""What the application gets to answer a body that came too late, before the connection is closed over its head."""
_HEADER_OVERHEAD: Final = len(b": \r\n")


class _Phase(enum.Enum):
    """What is expected of the client."""

    IDLE = enum.auto()
    HEAD = enum.auto()
    BODY = enum.auto()
    REFUSED = enum.auto()


def limited(options: GatewayOptions, admin_port: int | None = None) -> type[HttpToolsProtocol]:
    """Return uvicorn's protocol with the limits of `options`; connections to `admin_port` are always let in."""
    own_port = admin_port

    class Limited(LimitedProtocol):
        limits = options
        admin_port = own_port

    return Limited


class LimitedProtocol(HttpToolsProtocol):
    """One connection of a client. See `limited`."""

    limits: GatewayOptions
    admin_port: int | None = None
    _phase = _Phase.IDLE
    _head_bytes = 0
    _unfinished_bytes = 0
    _request_timer: asyncio.TimerHandle | None = None
    _write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, or turn it away."""
        super().connection_made(transport)
        # An operator must be able to look at a gateway that is full.
        is_admin = self.server is not None and self.server[1] == self.admin_port
        if len(self.connections) > self.limits.max_connections and not is_admin:
            self._refuse(503, f"{self.limits.max_connections} connections are open; try again later")
            return
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_request_timer()
        self._unset_keepalive_if_required()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what the client sent."""
        if self._phase is _Phase.IDLE:
            # Not when the parser sees the message begin: it skips empty lines before, of which there may be many.
            self._begin_head()
        super().data_received(data)
        if self._phase is _Phase.HEAD:
            self._unfinished_bytes += len(data)
            self._check_head(self._unfinished_bytes)

    def on_message_begin(self) -> None:
        """Begin a request; a pipelined one comes without data of its own."""
        if self._phase is _Phase.IDLE:
            self._begin_head()
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Take a part of the request line."""
        self._head_bytes += len(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        self._head_bytes += len(name) + len(value) + _HEADER_OVERHEAD
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Give the request to the application."""
        if not self._check_head(self._head_bytes):
            return
        self._phase = _Phase.BODY
        timeout_s = self.limits.body_timeout_s + BODY_GRACE_S
        self._start_request_timer(timeout_s, self.transport.close)
        super().on_headers_complete()
        if self.cycle is not None:
            direct_write.offer(cast("MutableMapping[str, Any]", self.scope), self.cycle)

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        if self._phase is not _Phase.REFUSED:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Note that the request is whole."""
        if self._phase is _Phase.REFUSED:
            return
        self._phase = _Phase.IDLE
        self._stop_request_timer()
        super().on_message_complete()

    def pause_writing(self) -> None:
        """Stop: the client does not read, or not as fast as the model writes."""
        super().pause_writing()
        if self._write_timer is None:
            self._write_timer = self.loop.call_later(self.limits.write_timeout_s, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on."""
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None
        if self.flow is not None:
            super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP."""
        self._refuse(400, "this is not an HTTP/1.1 request")

    def _begin_head(self) -> None:
        self._phase, self._head_bytes, self._unfinished_bytes = _Phase.HEAD, 0, 0
        timeout_s = self.limits.header_timeout_s
        self._start_request_timer(
            timeout_s, lambda: self._refuse(408, f"the headers did not come within {timeout_s:g} s")
        )

    def _check_head(self, num_bytes: int) -> bool:
        is_good = num_bytes <= self.limits.max_header_bytes
        if not is_good:
            self._refuse(431, f"the headers are longer than {self.limits.max_header_bytes} bytes")
        return is_good

    def _refuse(self, status: int, message: str) -> None:
        """Answer in place of the application, and hang up."""
        if self._phase is _Phase.REFUSED:
            return
        self._phase = _Phase.REFUSED
        self._stop_request_timer()
        is_answering = self.cycle is not None and not self.cycle.response_complete
        if not is_answering:
            body = orjson.dumps(ApiError(status, message).body())
            head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n" % len(body)
            retry = b"retry-after: 1\r\n" if status == 503 else b""
            self.transport.write(STATUS_LINE[status] + head + retry + b"\r\n" + body)
        fields: dict[str, Any] = {"status": status, "error": message, "client": self.client and self.client[0]}
        request_log.LOGGER.warning("connection refused", extra={"fields": fields})
        self.transport.close()

    def _start_request_timer(self, timeout_s: float, act: Callable[[], object]) -> None:
        self._stop_request_timer()
        self._request_timer = self.loop.call_later(timeout_s, act)

    def _stop_request_timer(self) -> None:
        if self._request_timer is not None:
            self._request_timer.cancel()
            self._request_timer = None

"""A tritonserver over a few long-lived cleartext HTTP/2 connections that are opened when needed and opened again."""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections import deque
from typing import TYPE_CHECKING, Final

import hpack

from scalellm_trt.gateway.errors import ApiError
from scalellm_trt.gateway.http2_connection import Connection
from scalellm_trt.gateway.http2_stream import Stream
from scalellm_trt.gateway.upstream import SERVICE
from scalellm_trt.triton import grpc_messages

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from scalellm_trt.gateway.upstream import Listener, Message

CONNECT_TIMEOUT_S: Final = 5.0
FIRST_BACKOFF_S: Final = 0.1
MAX_BACKOFF_S: Final = 0.5
_SOCKET_OPTIONS: Final = (
    # A host that vanishes is noticed by the kernel, also while a call is silent for long.
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)


class Http2Upstream:
    """An `Upstream`. Calls take turns over the connections; one that is full or down is passed over."""

    def __init__(self, url: str, num_connections: int) -> None:
        """Prepare connections to `url` (`host:port`); the first calls open them."""
        from tritonclient.grpc import service_pb2

        self._messages = service_pb2
        self._authority = url
        self._slots = [_Slot(url, self._on_change) for _ in range(num_connections)]
        self._turn = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._heads: dict[str, bytes] = {}
        self._retries: set[asyncio.Task[None]] = set()

    async def start(self, request: Message, listener: Listener, metadata: Sequence[tuple[str, str]] = ()) -> Stream:
        """See `Upstream`."""
        parse = self._messages.ModelStreamInferResponse.FromString
        stream = self._stream("ModelStreamInfer", request, listener, parse, metadata)
        await self._place(stream)
        return stream

    async def unary(self, method: str, request: Message, timeout_s: float) -> Message:
        """See `Upstream`."""
        answer = _OneMessage()
        parse = getattr(self._messages, f"{method}Response").FromString
        stream = self._stream(method, request, answer, parse, ())
        try:
            return await asyncio.wait_for(self._ask(stream, answer), timeout_s)
        except asyncio.TimeoutError as error:
            message = f"the model's server did not answer {method} within {timeout_s} s"
            raise ApiError(503, message, code="upstream_unavailable") from error
        finally:
            stream.cancel()

    def abandon(self, reason: str) -> None:
        """See `Upstream`."""
        for slot in self._slots:
            slot.abandon(reason)

    def last_received_s(self) -> float | None:
        """See `Upstream`."""
        return max((slot.received_s for slot in self._slots), default=0.0) or None

    def num_connections(self) -> int:
        """See `Upstream`."""
        return sum(slot.is_open for slot in self._slots)

    async def close(self) -> None:
        """See `Upstream`."""
        for task in self._retries:
            task.cancel()
        for slot in self._slots:
            slot.close()

    def _stream(
        self,
        method: str,
        request: Message,
        listener: Listener,
        parse: Callable[[bytes], Message],
        metadata: Sequence[tuple[str, str]],
    ) -> Stream:
        if method not in self._heads:
            self._heads[method] = _head(self._authority, method)
        head = self._heads[method] + (_header_block(metadata) if metadata else b"")
        stream = Stream(head, grpc_messages.framed(request.SerializeToString()), listener, parse)
        stream.on_refused = self._retry
        return stream

    async def _ask(self, stream: Stream, answer: _OneMessage) -> Message:
        await self._place(stream)
        return await answer.future

    async def _place(self, stream: Stream) -> None:
        """Begin a call on a connection that has room, or wait for one; in the order of coming."""
        loop, turn = asyncio.get_running_loop(), None
        try:
            while (connection := await self._connection()) is None:
                has_waited, turn = turn is not None, loop.create_future()
                if has_waited:
                    self._waiting.appendleft(turn)
                else:
                    self._waiting.append(turn)
                await turn
            connection.start(stream)
        finally:
            # Whether this call took the room or gave up: the next one looks for itself.
            if turn is None or turn.done():
                self._on_change()

    async def _connection(self) -> Connection | None:
        """Return a connection with room; None while all are full.

        Raises:
            ApiError: none stands and none can be opened.
        """
        self._turn = (self._turn + 1) % len(self._slots)
        order = self._slots[self._turn :] + self._slots[: self._turn]
        failure: ApiError | None = None
        for slot in order:
            if failure is not None and not slot.is_open:
                continue  # it would fail the same way, perhaps after seconds
            try:
                connection = await slot.connect()
            except ApiError as error:
                failure = error
                continue
            if connection.has_room:
                return connection
        if failure is not None and not any(slot.is_open for slot in self._slots):
            raise failure
        return None

    def _on_change(self) -> None:
        """Let the first of those that wait look again."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return

    def _retry(self, stream: Stream) -> None:
        """Begin a call anew that the server did not take, for example because it is going away."""
        stream.begin()
        task = asyncio.get_running_loop().create_task(self._begin_again(stream))
        self._retries.add(task)
        task.add_done_callback(self._retries.discard)

    async def _begin_again(self, stream: Stream) -> None:
        try:
            if not stream.is_over:
                await self._place(stream)
        except ApiError as error:
            stream.fail(error)
            stream.deliver()
            return
        if stream.is_over and stream.connection is not None:
            stream.connection.cancel(stream)


class _Slot:
    """One place of the pool: a connection, or when the next one may be tried."""

    def __init__(self, url: str, on_change: Callable[[], None]) -> None:
        host, _, port = url.rpartition(":")
        self._url, self._host, self._port = url, host.strip("[]"), int(port)
        self._on_change = on_change
        self._connection: Connection | None = None
        self._opening: asyncio.Task[Connection] | None = None
        self._backoff_s = 0.0
        self._retry_at_s = 0.0
        self._failure = ""

    @property
    def is_open(self) -> bool:
        return self._connection is not None and self._connection.is_open

    @property
    def received_s(self) -> float:
        return 0.0 if self._connection is None else self._connection.received_s

    async def connect(self) -> Connection:
        """Return the connection that takes calls; open one where there is none.

        Raises:
            ApiError: it cannot be opened, or could not a moment ago.
        """
        if self._connection is not None and self._connection.is_open:
            return self._connection
        if self._opening is None:
            if self._failure and time.monotonic() < self._retry_at_s:
                raise ApiError(503, self._failure, code="upstream_unavailable")
            self._opening = asyncio.get_running_loop().create_task(self._open())
            self._opening.add_done_callback(_look)
        opening = self._opening
        # One caller that gives up must not end the attempt of the others.
        return await asyncio.shield(opening)

    def close(self) -> None:
        if self._opening is not None:
            self._opening.cancel()
        if self._connection is not None:
            self._connection.close()

    def abandon(self, reason: str) -> None:
        if self._connection is not None:
            self._connection.close(reason)

    async def _open(self) -> Connection:
        try:
            connection = await asyncio.wait_for(self._handshake(), CONNECT_TIMEOUT_S)
        except (OSError, asyncio.TimeoutError, ApiError) as error:
            self._backoff_s = min(MAX_BACKOFF_S, self._backoff_s * 2 or FIRST_BACKOFF_S)
            self._retry_at_s = time.monotonic() + self._backoff_s * random.uniform(0.8, 1.2)
            reason = str(error) or f"no HTTP/2 settings within {CONNECT_TIMEOUT_S:.0f} s"
            self._failure = f"the model's server at {self._url} does not answer: {reason}"
            raise ApiError(503, self._failure, code="upstream_unavailable") from error
        finally:
            self._opening = None
        self._connection, self._failure, self._backoff_s = connection, "", 0.0
        return connection

    async def _handshake(self) -> Connection:
        loop = asyncio.get_running_loop()
        transport, connection = await loop.create_connection(
            lambda: Connection(self._on_change), self._host, self._port
        )
        try:
            _set_options(transport.get_extra_info("socket"))
            await connection.ready
        except BaseException:
            transport.abort()
            raise
        return connection


class _OneMessage:
    """Listens for the answer of a unary call."""

    def __init__(self) -> None:
        self.future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._message: Message = None

    def on_messages(self, messages: list[Message]) -> None:
        self._message = messages[-1]

    def on_end(self, error: ApiError | None) -> None:
        if self.future.done():
            return
        if error is None and self._message is None:
            error = ApiError(500, "the model's server sent no answer")
        if error is not None:
            self.future.set_exception(error)
        else:
            self.future.set_result(self._message)


def _head(authority: str, method: str) -> bytes:
    """Return the header block of every call of a method."""
    fields = (
        (":method", "POST"),
        (":scheme", "http"),
        (":path", f"/{SERVICE}/{method}"),
        (":authority", authority),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("user-agent", "scalellm-trt"),
    )
    return _header_block(fields)


def _header_block(fields: Sequence[tuple[str, str]]) -> bytes:
    """Return fields as they are written when nothing is to be remembered between calls."""
    never_indexed = [hpack.NeverIndexedHeaderTuple(name, value) for name, value in fields]
    return hpack.Encoder().encode(never_indexed)


def _set_options(transport_socket: socket.socket | None) -> None:
    if transport_socket is not None and transport_socket.family in (socket.AF_INET, socket.AF_INET6):
        for level, option, value in _SOCKET_OPTIONS:
            transport_socket.setsockopt(level, option, value)


def _look(task: asyncio.Task[Connection]) -> None:
    """Retrieve a failure that nobody may have waited for."""
    if not task.cancelled():
        task.exception()

"""gRPC calls that keep when each message came and parse none of them: Triton's streams, over HTTP/2 by our own frames.

`grpc.aio` takes some 0.5 ms of a core for each response: with 64 streams of 200 tokens a second that is six cores.
"""

from __future__ import annotations

import asyncio
import socket
import time
from typing import TYPE_CHECKING, Any, Final

import hpack

from scalellm_trt.bench.targets.raw import Raw
from scalellm_trt.triton import grpc_messages
from scalellm_trt.triton import http2_frames as h2
from scalellm_trt.triton.grpc_messages import MessageError, MessageReader
from scalellm_trt.triton.http2_frames import FrameReader, Http2Error

if TYPE_CHECKING:
    from scalellm_trt.bench.records import ErrorClass

METHOD: Final = "/inference.GRPCInferenceService/ModelStreamInfer"
NUM_CONNECTIONS: Final = 4
ACKNOWLEDGE_BYTES: Final = 2**20
CONNECT_TIMEOUT_S: Final = 10.0
_GREETING: Final = (
    h2.PREFACE
    + h2.settings({h2.SET_HEADER_TABLE_SIZE: 0, h2.SET_ENABLE_PUSH: 0, h2.SET_INITIAL_WINDOW_SIZE: h2.MAX_WINDOW})
    + h2.window_update(0, h2.MAX_WINDOW - h2.DEFAULT_WINDOW)
)
_BY_STATUS: Final[dict[str, ErrorClass]] = {
    "INVALID_ARGUMENT": "bad_request", "NOT_FOUND": "wrong_model", "UNAUTHENTICATED": "unauthorized",
    "PERMISSION_DENIED": "unauthorized", "RESOURCE_EXHAUSTED": "rate_limited", "DEADLINE_EXCEEDED": "timeout",
    "UNIMPLEMENTED": "not_found",
}  # fmt: skip


class Call:
    """One stream: what came of it goes into `raw`."""

    def __init__(self, raw: Raw, request: bytes) -> None:
        """Take a framed request."""
        self.raw, self.unsent = raw, memoryview(request)
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.send_window = 0
        self.headers: dict[str, str] = {}
        self._reader = MessageReader()

    def take(self, now_s: float, payload: bytes) -> None:
        """Keep the messages that a DATA frame completes."""
        try:
            self.raw.pieces += [(now_s, message) for message in self._reader.feed(payload)]
        except MessageError as error:
            self.fail("garbage", f"the server sent {error}")

    def end(self, now_s: float) -> None:
        """Take the end by the trailers."""
        name, details = grpc_messages.status(self.headers)
        self.raw.end_s = self.raw.end_s or now_s
        if name != "OK":
            self.fail(_BY_STATUS.get(name, "server_error"), f"{name}: {details}")
        self._finish()

    def fail(self, error: ErrorClass, text: str) -> None:
        """End with an error."""
        self.raw.fail(error, text)
        self._finish()

    def _finish(self) -> None:
        self.raw.end_s = self.raw.end_s or time.monotonic()
        if not self.done.done():
            self.done.set_result(None)


class Connection(asyncio.Protocol):
    """An HTTP/2 connection with any number of calls."""

    def __init__(self, authority: str) -> None:
        """Wait to be connected."""
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.transport: Any = None
        self.failure: tuple[ErrorClass, str] | None = None
        self._head = _head(authority)
        self._frames, self._hpack = FrameReader(), hpack.Decoder()
        self._calls: dict[int, Call] = {}
        self._block: tuple[int, int, bytes] = (0, 0, b"")
        self._next_id, self._num_received = 1, 0
        self._window = self._stream_window = h2.DEFAULT_WINDOW

    def start(self, call: Call) -> int:
        """Begin a call; return its number."""
        number, self._next_id = self._next_id, self._next_id + 2
        self._calls[number] = call
        call.send_window = self._stream_window
        self.transport.write(h2.frame(h2.HEADERS, h2.END_HEADERS, number, self._head) + self._sendable(number, call))
        return number

    def cancel(self, number: int) -> None:
        """End a call on the server, if it is still one."""
        if self._calls.pop(number, None) is not None and self.failure is None:
            self.transport.write(h2.rst_stream(number, h2.CANCEL))

    def connection_made(self, transport: Any) -> None:  # noqa: ANN401  uvloop's is not asyncio's
        """See `asyncio.Protocol`."""
        self.transport = transport
        transport.write(_GREETING)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`; whatever came in one read came at the same time."""
        now_s = time.monotonic()
        try:
            if not self.ready.done() and data.startswith(b"HTTP/"):
                raise Http2Error(h2.PROTOCOL_ERROR, f"the server speaks HTTP/1: {data[:40]!r}")
            for kind, flags, number, payload in self._frames.feed(data):
                if kind == h2.DATA:
                    self._on_data(now_s, flags, number, payload)
                else:
                    self._on_other(now_s, kind, flags, number, payload)
        except (Http2Error, hpack.HPACKError, UnicodeDecodeError) as error:
            self.break_off("garbage", f"not gRPC: {error}")

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self.break_off("connection_lost", f"the connection was closed{f': {exc}' if exc else ''}")

    def break_off(self, error: ErrorClass, text: str) -> None:
        """Fail all calls and close."""
        self.failure = self.failure or (error, text)
        if not self.ready.done():
            self.ready.set_result(None)
        calls, self._calls = list(self._calls.values()), {}
        for call in calls:
            call.fail(error, text)
        self.transport.abort()

    def _on_data(self, now_s: float, flags: int, number: int, payload: bytes) -> None:
        self._num_received += len(payload)
        if self._num_received >= ACKNOWLEDGE_BYTES:
            self.transport.write(h2.window_update(0, self._num_received))
            self._num_received = 0
        if call := self._calls.get(number):
            call.take(now_s, h2.without_padding(flags, payload))

    def _on_other(self, now_s: float, kind: int, flags: int, number: int, payload: bytes) -> None:
        if kind in (h2.HEADERS, h2.CONTINUATION):
            self._on_headers(now_s, kind, flags, number, payload)
        elif kind == h2.SETTINGS and not flags & h2.ACK:
            self._on_settings(payload)
        elif kind == h2.WINDOW_UPDATE:
            self._on_window(number, h2.number(payload) & h2.MAX_WINDOW)
        elif kind == h2.PING and not flags & h2.ACK:
            self.transport.write(h2.frame(h2.PING, h2.ACK, 0, payload))
        elif kind == h2.RST_STREAM and (call := self._calls.pop(number, None)):
            call.fail("connection_lost", f"the server ended the call with HTTP/2 code {h2.number(payload)}")
        elif kind == h2.GOAWAY:
            self.failure = ("connection_lost", "the server takes no more calls")

    def _on_headers(self, now_s: float, kind: int, flags: int, number: int, payload: bytes) -> None:
        if kind == h2.HEADERS:
            payload = h2.without_padding(flags, payload)[5 if flags & h2.PRIORITY else 0 :]
            self._block = (number, flags & h2.END_STREAM, payload)
        else:
            self._block = (*self._block[:2], self._block[2] + payload)
        if not flags & h2.END_HEADERS:
            return
        number, ends, block = self._block
        headers = {str(name): str(value) for name, value in self._hpack.decode(block)}
        if call := self._calls.get(number):
            call.headers.update(headers)
            if ends:
                del self._calls[number]
                call.end(now_s)

    def _on_settings(self, payload: bytes) -> None:
        for key, value in h2.read_settings(payload):
            if key == h2.SET_INITIAL_WINDOW_SIZE:
                change, self._stream_window = value - self._stream_window, value
                for call in self._calls.values():
                    call.send_window += change
        self.transport.write(h2.frame(h2.SETTINGS, h2.ACK, 0))
        if not self.ready.done():
            self.ready.set_result(None)
        self._send_rest()

    def _on_window(self, number: int, increment: int) -> None:
        if number == 0:
            self._window += increment
        elif call := self._calls.get(number):
            call.send_window += increment
        self._send_rest()

    def _send_rest(self) -> None:
        if output := b"".join(self._sendable(number, call) for number, call in self._calls.items()):
            self.transport.write(output)

    def _sendable(self, number: int, call: Call) -> bytes:
        """Return as much of a request as both windows let through; its last frame half-closes the stream."""
        frames = []
        while call.unsent and (size := min(call.send_window, self._window, h2.MAX_FRAME_SIZE)) > 0:
            part, call.unsent = call.unsent[:size], call.unsent[size:]
            call.send_window -= len(part)
            self._window -= len(part)
            frames.append(h2.frame(h2.DATA, 0 if call.unsent else h2.END_STREAM, number, part))
        return b"".join(frames)


class GrpcClient:
    """A few connections to one server, which calls take in turns."""

    def __init__(self, url: str) -> None:
        """Take `host:port`."""
        host, _, port = url.rpartition(":")
        self._url, self._host, self._port = url, host.strip("[]"), int(port)
        self._connections: list[Connection] = []
        self._turn = 0
        self._calls: dict[Call, tuple[Connection, int]] = {}

    async def prepare(self, num_streams: int) -> None:
        """Open the connections; one that cannot be opened will be missed later."""
        self._connections = [each for each in self._connections if each.failure is None]
        while len(self._connections) < min(NUM_CONNECTIONS, num_streams):
            try:
                self._connections.append(await asyncio.wait_for(self._open(), CONNECT_TIMEOUT_S))
            except (OSError, asyncio.TimeoutError):
                return

    async def exchange(self, request: bytes, timeout_s: float) -> Raw:
        """Send a message on a stream of its own and return what came of it, within the timeout."""
        raw = Raw(sent_s=time.monotonic())
        call = Call(raw, grpc_messages.framed(request))
        try:
            await asyncio.wait_for(self._exchange(call), timeout_s)
        except asyncio.TimeoutError:
            raw.fail("timeout", f"no whole answer within {timeout_s:g} s")
        except OSError as error:
            raw.fail("refused", f"{self._url}: {error}")
        raw.end_s = raw.end_s or time.monotonic()
        return raw

    def give_up(self) -> None:
        """Cancel every call."""
        for call in list(self._calls):
            call.raw.was_cancelled = True
            call.fail("timeout", "given up")

    async def close(self) -> None:
        """Close the connections."""
        for connection in self._connections:
            connection.transport.abort()
        await asyncio.sleep(0)  # a transport lets go of its socket in the loop's next turn

    async def _exchange(self, call: Call) -> None:
        connection = await self._connection()
        if connection.failure is not None:
            call.fail(*connection.failure)
            return
        number = connection.start(call)
        self._calls[call] = (connection, number)
        try:
            await call.done
        finally:
            del self._calls[call]
            connection.cancel(number)

    async def _connection(self) -> Connection:
        self._connections = [each for each in self._connections if each.failure is None]
        if not self._connections:
            self._connections.append(await self._open())
        self._turn = (self._turn + 1) % len(self._connections)
        return self._connections[self._turn]

    async def _open(self) -> Connection:
        loop = asyncio.get_running_loop()
        transport, connection = await loop.create_connection(lambda: Connection(self._url), self._host, self._port)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            await connection.ready
        except BaseException:
            transport.abort()
            raise
        return connection


def _head(authority: str) -> bytes:
    fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", METHOD),
        (":authority", authority),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("user-agent", "scalellm-trt-bench"),
    ]
    return hpack.Encoder().encode([hpack.NeverIndexedHeaderTuple(name, value) for name, value in fields])

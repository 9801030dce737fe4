"""One cleartext HTTP/2 connection to a gRPC server: calls out, what is received back to their streams.

Each read is worked off at once: every frame of it, then each stream that it touched tells its listener, then one write.
A stream's window is opened as its listener takes what came, the connection's as it is received: so a slow reader stops
its own sender and nobody else's.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final, cast

import hpack

from scalellm_trt.gateway.errors import ApiError
from scalellm_trt.gateway.http2_stream import WINDOW
from scalellm_trt.triton import http2_frames as h2
from scalellm_trt.triton.http2_frames import FrameReader, Http2Error

if TYPE_CHECKING:
    from collections.abc import Callable

    from scalellm_trt.gateway.http2_stream import Stream

LAST_STREAM_ID: Final = 2**31 - 1
ACKNOWLEDGE_BYTES: Final = 2**20
MAX_HEADER_BYTES: Final = 65_536
KEEPALIVE_S: Final = 30.0
"""A connection with calls that has been silent for so long is asked whether it still is one."""
KEEPALIVE_TIMEOUT_S: Final = 10.0
MAX_PINGS_WITHOUT_DATA: Final = 2
"""More would be too many for a gRPC server; its own clients keep to the same number."""
_PING: Final = b"keepaliv"
_GREETING: Final = (
    h2.PREFACE
    # No dynamic table: header blocks mean the same at all times.
    + h2.settings({h2.SET_HEADER_TABLE_SIZE: 0, h2.SET_ENABLE_PUSH: 0, h2.SET_INITIAL_WINDOW_SIZE: WINDOW})
    + h2.window_update(0, h2.MAX_WINDOW - h2.DEFAULT_WINDOW)
)


class Connection(asyncio.Protocol):
    """A client's end. Ready once the peer has sent its settings.

    Attributes:
        ready: fails when the peer turns out not to speak HTTP/2.
        is_open: takes new calls, as far as there is room.
    """

    def __init__(self, on_change: Callable[[], None]) -> None:
        """Prepare a connection; `on_change` is called when there may be room, or none at all any more."""
        self._loop = asyncio.get_running_loop()
        self._on_change = on_change
        self.ready: asyncio.Future[None] = self._loop.create_future()
        self.is_open = False
        self._transport: asyncio.Transport | None = None
        self._frames = FrameReader()
        self._hpack = hpack.Decoder()
        self._streams: dict[int, Stream] = {}
        self._touched: dict[int, Stream] = {}
        self._output: list[bytes] = []
        self._headers: tuple[int, int, bytes] | None = None
        self._next_id = 1
        self._max_streams = h2.MAX_WINDOW
        self._max_frame = h2.MAX_FRAME_SIZE
        self._stream_window = self._send_window = h2.DEFAULT_WINDOW
        self._num_received = 0
        self._heard_s = self._pinged_s = self.received_s = 0.0
        self._num_pings = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def has_room(self) -> bool:
        """Whether a call can begin now."""
        return self.is_open and len(self._streams) < self._max_streams

    @property
    def num_streams(self) -> int:
        """Return how many calls are live."""
        return len(self._streams)

    def start(self, stream: Stream) -> None:
        """Begin a call; there must be room."""
        stream.connection, stream.stream_id = self, self._next_id
        self._next_id += 2
        if self._next_id > LAST_STREAM_ID:
            self._retire()
        if not self._streams:
            self._heard_s = time.monotonic()
        self._streams[stream.stream_id] = stream
        stream.send_window = self._stream_window
        self._output.append(h2.frame(h2.HEADERS, h2.END_HEADERS, stream.stream_id, stream.head))
        self._send_request(stream)
        self._flush()

    def cancel(self, stream: Stream) -> None:
        """End a call on the server."""
        if self._streams.pop(stream.stream_id, None) is not None:
            self._output.append(h2.rst_stream(stream.stream_id, h2.CANCEL))
            self._flush()
            self._note_room()

    def acknowledge(self, stream: Stream, num_bytes: int) -> None:
        """Let the server send so many bytes more."""
        if stream.stream_id in self._streams:
            self._output.append(h2.window_update(stream.stream_id, num_bytes))
            self._flush()

    def close(self, reason: str = "the gateway stops") -> None:
        """Say goodbye and end; live calls fail with 503."""
        self._end(ApiError(503, reason, code="upstream_unavailable"), h2.goaway(h2.NO_ERROR))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        # uvloop's are not derived from asyncio.Transport.
        self._transport = cast("asyncio.Transport", transport)
        self._heard_s = time.monotonic()
        self._transport.write(_GREETING)
        self._timer = self._loop.call_later(KEEPALIVE_TIMEOUT_S, self._keep_alive)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._heard_s = self.received_s = time.monotonic()
        if self._passes_by(data):
            return
        try:
            for kind, flags, stream_id, payload in self._frames.feed(data):
                if self._headers is not None and kind != h2.CONTINUATION:
                    raise Http2Error(h2.PROTOCOL_ERROR, "a header block is interrupted")
                if kind == h2.DATA:
                    self._on_data(flags, stream_id, payload)
                elif handler := _HANDLERS.get(kind):
                    handler(self, flags, stream_id, payload)
        except Http2Error as error:
            self._break_off(error)
            return
        if self._touched:
            touched, self._touched = self._touched, {}
            for stream in touched.values():
                stream.deliver()
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        reason = f"the connection to the model's server is lost: {exc or 'the server closed it'}"
        self._end(ApiError(503, reason, code="upstream_unavailable"))

    def _passes_by(self, data: bytes) -> bool:
        """Take a read that is one plain token; most are, from a server that sends each in a packet of its own."""
        stream = self._streams.get(h2.stream_of(data))
        if stream is None or self._headers is not None or self._frames.rest or not stream.pass_by(data):
            return False
        self._num_pings = 0
        self._num_received += len(data) - h2.HEAD_SIZE  # acknowledged with what comes another way
        return True

    def _on_data(self, flags: int, stream_id: int, payload: bytes) -> None:
        self._num_received += len(payload)
        if self._num_received >= ACKNOWLEDGE_BYTES:
            self._output.append(h2.window_update(0, self._num_received))
            self._num_received = 0
        stream = self._streams.get(stream_id)
        if stream is None:
            self._check_known(stream_id)
            return
        self._touched[stream_id] = stream
        self._num_pings = 0
        num_bytes = stream.take(h2.without_padding(flags, payload) if flags & h2.PADDED else payload)
        if stream_id not in self._streams:
            return  # what it holds could not be taken
        if flags & h2.END_STREAM:
            self._leave(stream_id)
            stream.end({})
        elif num_bytes:
            self._output.append(h2.window_update(stream_id, num_bytes))

    def _on_headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        block = h2.without_padding(flags, payload)
        if flags & h2.PRIORITY:
            block = block[5:]
        self._headers = (stream_id, flags & h2.END_STREAM, block)
        if flags & h2.END_HEADERS:
            self._end_headers()

    def _on_continuation(self, flags: int, stream_id: int, payload: bytes) -> None:
        if self._headers is None or self._headers[0] != stream_id:
            raise Http2Error(h2.PROTOCOL_ERROR, "CONTINUATION without HEADERS")
        _, ends_stream, block = self._headers
        if len(block) + len(payload) > MAX_HEADER_BYTES:
            raise Http2Error(h2.ENHANCE_YOUR_CALM, f"headers of more than {MAX_HEADER_BYTES} bytes")
        self._headers = (stream_id, ends_stream, block + payload)
        if flags & h2.END_HEADERS:
            self._end_headers()

    def _end_headers(self) -> None:
        assert self._headers is not None
        (stream_id, ends_stream, block), self._headers = self._headers, None
        try:
            # Also for a call that is over: the decoder has a memory, should the peer have used it.
            # Text, whatever its annotations say.
            headers = dict(cast("list[tuple[str, str]]", self._hpack.decode(block)))
        except (hpack.HPACKError, UnicodeDecodeError) as error:
            raise Http2Error(h2.COMPRESSION_ERROR, f"headers that cannot be read: {error}") from error
        stream = self._streams.get(stream_id)
        if stream is None:
            self._check_known(stream_id)
            return
        self._num_pings = 0
        if not ends_stream:
            stream.headers.update(headers)
            return
        self._leave(stream_id)
        stream.end(headers)
        self._touched[stream_id] = stream

    def _on_rst_stream(self, flags: int, stream_id: int, payload: bytes) -> None:
        code = h2.number(payload)
        stream = self._streams.get(stream_id)
        if stream is not None:
            stream.may_retry = code == h2.REFUSED_STREAM
            self._fail(stream, ApiError(503, f"the model's server ended the call with HTTP/2 code {code}"))

    def _on_settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        if flags & h2.ACK:
            return
        for key, value in h2.read_settings(payload):
            if key == h2.SET_INITIAL_WINDOW_SIZE:
                self._set_stream_window(value)
            elif key == h2.SET_MAX_CONCURRENT_STREAMS:
                self._max_streams = value
            elif key == h2.SET_MAX_FRAME_SIZE:
                if not h2.MAX_FRAME_SIZE <= value < 2**24:
                    raise Http2Error(h2.PROTOCOL_ERROR, f"a maximum frame size of {value}")
                self._max_frame = value
        self._output.append(h2.frame(h2.SETTINGS, h2.ACK, 0))
        if not self.ready.done():
            self.is_open = True
            self.ready.set_result(None)
        self._note_room()

    def _set_stream_window(self, size: int) -> None:
        if size > h2.MAX_WINDOW:
            raise Http2Error(h2.FLOW_CONTROL_ERROR, f"an initial window of {size}")
        change, self._stream_window = size - self._stream_window, size
        for stream in self._streams.values():
            stream.send_window += change
            self._send_request(stream)

    def _on_ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        if len(payload) != 8:
            raise Http2Error(h2.FRAME_SIZE_ERROR, f"a PING of {len(payload)} bytes")
        if not flags & h2.ACK:
            self._output.append(h2.frame(h2.PING, h2.ACK, 0, payload))
        elif payload == _PING:
            self._pinged_s = 0.0

    def _on_goaway(self, flags: int, stream_id: int, payload: bytes) -> None:
        last = h2.number(payload) & h2.MAX_WINDOW
        self._retire()
        reason = payload[8:].decode("utf-8", "replace") or "no reason given"
        error = ApiError(503, f"the model's server takes no more calls: {reason}", code="upstream_unavailable")
        for stream in [stream for stream in self._streams.values() if stream.stream_id > last]:
            stream.may_retry = True
            self._fail(stream, error)
        self._close_when_empty()

    def _on_window_update(self, flags: int, stream_id: int, payload: bytes) -> None:
        increment = h2.number(payload) & h2.MAX_WINDOW
        if stream_id == 0:
            self._send_window += increment
            if self._send_window > h2.MAX_WINDOW:
                raise Http2Error(h2.FLOW_CONTROL_ERROR, "a window wider than allowed")
            for waiting in self._streams.values():
                self._send_request(waiting)
        elif stream := self._streams.get(stream_id):
            stream.send_window += increment
            self._send_request(stream)

    def _on_push_promise(self, flags: int, stream_id: int, payload: bytes) -> None:
        raise Http2Error(h2.PROTOCOL_ERROR, "PUSH_PROMISE, which is switched off")

    def _send_request(self, stream: Stream) -> None:
        """Send as much of a request as both windows let through; its last frame half-closes the stream."""
        while stream.unsent and (size := min(stream.send_window, self._send_window, self._max_frame)) > 0:
            part, stream.unsent = stream.unsent[:size], stream.unsent[size:]
            stream.send_window -= len(part)
            self._send_window -= len(part)
            flags = 0 if stream.unsent else h2.END_STREAM
            self._output.append(h2.frame(h2.DATA, flags, stream.stream_id, part))

    def _flush(self) -> None:
        if self._output and self._transport is not None:
            output, self._output = self._output, []
            self._transport.write(b"".join(output))

    def _check_known(self, stream_id: int) -> None:
        if stream_id == 0 or stream_id % 2 == 0 or stream_id >= self._next_id:
            raise Http2Error(h2.PROTOCOL_ERROR, f"a frame for stream {stream_id}, which nobody opened")

    def _fail(self, stream: Stream, error: ApiError) -> None:
        self._leave(stream.stream_id)
        stream.fail(error)
        self._touched[stream.stream_id] = stream

    def _leave(self, stream_id: int) -> None:
        del self._streams[stream_id]
        self._note_room()

    def _note_room(self) -> None:
        self._on_change()
        if not self.is_open:
            self._close_when_empty()

    def _retire(self) -> None:
        """Take no more calls; those that are live go on."""
        self.is_open = False
        self._on_change()

    def _close_when_empty(self) -> None:
        if not self._streams and self._transport is not None and self.ready.done():
            self._flush()
            self._transport.close()

    def _break_off(self, error: Http2Error) -> None:
        message = f"the model's server breaks HTTP/2: {error}"
        self._end(ApiError(503, message, code="upstream_unavailable"), h2.goaway(error.code, str(error)))

    def _end(self, error: ApiError, farewell: bytes = b"") -> None:
        """End the connection and fail whatever is live; also called after the end."""
        self.is_open = False
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            transport, self._transport = self._transport, None
            if farewell:
                transport.write(farewell)
            transport.close()
        if not self.ready.done():
            self.ready.set_exception(error)
            self.ready.exception()  # nobody may be waiting for it any more
        streams = [*self._touched.values(), *self._streams.values()]
        for stream in self._streams.values():
            stream.fail(error)
        self._streams.clear()
        self._touched.clear()
        for stream in streams:
            stream.deliver()
        self._on_change()

    def _keep_alive(self) -> None:
        """Look each few seconds whether the peer is still there, while calls wait for it."""
        now = time.monotonic()
        if self._pinged_s and self._heard_s < self._pinged_s <= now - KEEPALIVE_TIMEOUT_S:
            message = f"the model's server has been silent for {now - self._heard_s:.0f} s"
            self._end(ApiError(503, message, code="upstream_unavailable"))
            return
        is_silent = self._streams and now - self._heard_s >= KEEPALIVE_S
        if is_silent and self._num_pings < MAX_PINGS_WITHOUT_DATA and self._pinged_s <= self._heard_s:
            self._num_pings += 1
            self._pinged_s = now
            self._output.append(h2.frame(h2.PING, 0, 0, _PING))
            self._flush()
        self._timer = self._loop.call_later(KEEPALIVE_TIMEOUT_S, self._keep_alive)


_HANDLERS: Final[dict[int, Callable[[Connection, int, int, bytes], None]]] = {
    h2.HEADERS: Connection._on_headers,
    h2.RST_STREAM: Connection._on_rst_stream,
    h2.SETTINGS: Connection._on_settings,
    h2.PUSH_PROMISE: Connection._on_push_promise,
    h2.PING: Connection._on_ping,
    h2.GOAWAY: Connection._on_goaway,
    h2.WINDOW_UPDATE: Connection._on_window_update,
    h2.CONTINUATION: Connection._on_continuation,
}

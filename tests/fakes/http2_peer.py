"""A gRPC server's end of one HTTP/2 connection, by hand: what it sends is written down byte by byte."""

from __future__ import annotations

import asyncio
import struct
from typing import TYPE_CHECKING

import hpack
from tritonclient.grpc import service_pb2

from scalellm_trt.gateway.http2_connection import Connection
from scalellm_trt.gateway.http2_stream import Stream
from scalellm_trt.triton import grpc_messages
from scalellm_trt.triton import http2_frames as h2
from scalellm_trt.triton.http2_frames import FrameReader

if TYPE_CHECKING:
    from collections.abc import Callable

    from scalellm_trt.gateway.errors import ApiError

HEAD = hpack.Encoder().encode([(":method", "POST"), (":path", "/x")])
OK_HEADERS = ((":status", "200"), ("content-type", "application/grpc"))


class Wire(asyncio.Transport):
    """Takes what the client writes."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.is_closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.is_closed
        self.written += data

    def close(self) -> None:
        self.is_closed = True


class Heard:
    """Listens to a call."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.reads: list[int] = []
        self.ends: list[ApiError | None] = []
        self.then: Callable[[], None] = lambda: None

    def on_messages(self, messages: list[service_pb2.ModelStreamInferResponse]) -> None:
        assert messages
        assert not self.ends
        self.texts += [message.error_message for message in messages]
        self.reads.append(len(messages))
        self.then()

    def on_end(self, error: ApiError | None) -> None:
        self.ends.append(error)


class Peer:
    """A connection, and the server that it talks to; `settings` are the server's."""

    def __init__(self, settings: dict[int, int] | None = None) -> None:
        self.wire, self.changes = Wire(), 0
        self.connection = Connection(self._count)
        self.connection.connection_made(self.wire)
        greeting = self.wire.written
        assert greeting.startswith(h2.PREFACE)
        self._frames = FrameReader()
        self._num_seen = len(h2.PREFACE)
        self._hpack = hpack.Encoder()
        self._hpack.header_table_size = 0
        self.send(h2.settings(settings or {}))
        first, _, ack = self.new_frames()
        assert dict(h2.read_settings(first[3]))[h2.SET_ENABLE_PUSH] == 0
        assert ack[:2] == (h2.SETTINGS, h2.ACK)

    def _count(self) -> None:
        self.changes += 1

    def start(self, heard: Heard, request: bytes = b"request") -> Stream:
        """Begin a call whose messages are `ModelStreamInferResponse`s."""
        stream = Stream(HEAD, request, heard, service_pb2.ModelStreamInferResponse.FromString)
        self.connection.start(stream)
        return stream

    def send(self, *frames: bytes) -> None:
        """Let the client read frames in one go."""
        self.connection.data_received(b"".join(frames))

    def new_frames(self) -> list[h2.Frame]:
        """Return what the client has sent since the last call."""
        new = self.wire.written[self._num_seen :]
        self._num_seen += len(new)
        return self._frames.feed(new)

    def headers(self, stream_id: int, fields: tuple[tuple[str, str], ...] = OK_HEADERS, *, ends: bool = False) -> bytes:
        """Return a HEADERS frame."""
        flags = h2.END_HEADERS | (h2.END_STREAM if ends else 0)
        return h2.frame(h2.HEADERS, flags, stream_id, self._hpack.encode(fields))

    def trailers(self, stream_id: int, status: int = 0, message: str = "") -> bytes:
        """Return the end of a call."""
        fields = (("grpc-status", str(status)), *((("grpc-message", message),) if message else ()))
        return self.headers(stream_id, fields, ends=True)


def message(text: str) -> bytes:
    """Return a framed message that carries `text`."""
    return grpc_messages.framed(service_pb2.ModelStreamInferResponse(error_message=text).SerializeToString())


def data(stream_id: int, payload: bytes, flags: int = 0) -> bytes:
    """Return a DATA frame."""
    return h2.frame(h2.DATA, flags, stream_id, payload)


def go_away(last_stream_id: int, reason: str = "") -> bytes:
    """Return a server's GOAWAY."""
    return h2.frame(h2.GOAWAY, 0, 0, struct.pack(">II", last_stream_id, 0) + reason.encode())

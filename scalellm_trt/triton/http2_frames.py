"""HTTP/2 frames (RFC 9113): bytes in, frames out, however they were cut; and the frames that a client sends."""

from __future__ import annotations

import struct
from typing import Final

DATA: Final = 0x0
HEADERS: Final = 0x1
RST_STREAM: Final = 0x3
SETTINGS: Final = 0x4
PUSH_PROMISE: Final = 0x5
PING: Final = 0x6
GOAWAY: Final = 0x7
WINDOW_UPDATE: Final = 0x8
CONTINUATION: Final = 0x9

ACK: Final = 0x1
END_STREAM: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITY: Final = 0x20

SET_HEADER_TABLE_SIZE: Final = 0x1
SET_ENABLE_PUSH: Final = 0x2
SET_MAX_CONCURRENT_STREAMS: Final = 0x3
SET_INITIAL_WINDOW_SIZE: Final = 0x4
SET_MAX_FRAME_SIZE: Final = 0x5

NO_ERROR: Final = 0x0
PROTOCOL_ERROR: Final = 0x1
FLOW_CONTROL_ERROR: Final = 0x3
FRAME_SIZE_ERROR: Final = 0x6
REFUSED_STREAM: Final = 0x7
CANCEL: Final = 0x8
COMPRESSION_ERROR: Final = 0x9
ENHANCE_YOUR_CALM: Final = 0xB

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DEFAULT_WINDOW: Final = 65_535
MAX_WINDOW: Final = 2**31 - 1
MAX_FRAME_SIZE: Final = 16_384
"""Longest payload that we take; the default, which we leave as it is."""

Frame = tuple[int, int, int, bytes]
"""Type, flags, stream, payload."""

_HEAD: Final = struct.Struct(">HBBBI")
HEAD_SIZE: Final = 9
_STREAM_MASK: Final = 2**31 - 1


class Http2Error(Exception):
    """The peer broke the protocol: the connection must end with `code`."""

    def __init__(self, code: int, message: str) -> None:
        """Take HTTP/2's error code and what happened."""
        super().__init__(message)
        self.code = code


class FrameReader:
    """Finds the frames in what a connection receives.

    Attributes:
        rest: what has come of a frame that is not complete.
    """

    def __init__(self) -> None:
        """Begin at the start of a frame."""
        self.rest = b""

    def feed(self, data: bytes) -> list[Frame]:
        """Return the frames that `data` completes.

        Raises:
            Http2Error: a frame is longer than allowed.
        """
        if self.rest:
            data = self.rest + data
        frames = []
        position, end = 0, len(data)
        while end - position >= HEAD_SIZE:
            high, low, kind, flags, stream_id = _HEAD.unpack_from(data, position)
            size = high << 8 | low
            if size > MAX_FRAME_SIZE:
                raise Http2Error(FRAME_SIZE_ERROR, f"a frame of {size} bytes; {MAX_FRAME_SIZE} are allowed")
            start = position + HEAD_SIZE
            if start + size > end:
                break
            position = start + size
            frames.append((kind, flags, stream_id & _STREAM_MASK, data[start:position]))
        self.rest = data[position:]
        return frames


def stream_of(data: bytes) -> int:
    """Return the stream of the frame that `data` begins with."""
    return int.from_bytes(data[5:9], "big")


def frame(kind: int, flags: int, stream_id: int, payload: bytes | memoryview = b"") -> bytes:
    """Return one frame."""
    return _HEAD.pack(len(payload) >> 8, len(payload) & 0xFF, kind, flags, stream_id) + payload


def settings(values: dict[int, int]) -> bytes:
    """Return a SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", key, value) for key, value in values.items()))


def read_settings(payload: bytes) -> list[tuple[int, int]]:
    """Return what a SETTINGS frame sets.

    Raises:
        Http2Error: it is cut off.
    """
    if len(payload) % 6:
        raise Http2Error(FRAME_SIZE_ERROR, f"SETTINGS of {len(payload)} bytes")
    return list(struct.iter_unpack(">HI", payload))


def window_update(stream_id: int, increment: int) -> bytes:
    """Return a WINDOW_UPDATE frame; stream 0 is the connection."""
    return frame(WINDOW_UPDATE, 0, stream_id, struct.pack(">I", increment))


def rst_stream(stream_id: int, code: int) -> bytes:
    """Return an RST_STREAM frame."""
    return frame(RST_STREAM, 0, stream_id, struct.pack(">I", code))


def goaway(code: int, reason: str = "") -> bytes:
    """Return a GOAWAY frame of a client, which has taken no stream of its peer's."""
    return frame(GOAWAY, 0, 0, struct.pack(">II", 0, code) + reason.encode())


def number(payload: bytes, position: int = 0) -> int:
    """Return the 32-bit number in a payload.

    Raises:
        Http2Error: the payload is too short.
    """
    if len(payload) < position + 4:
        raise Http2Error(FRAME_SIZE_ERROR, f"a frame of {len(payload)} bytes, too short for what it is")
    value: int = struct.unpack_from(">I", payload, position)[0]
    return value


def without_padding(flags: int, payload: bytes) -> bytes:
    """Return what a DATA or HEADERS frame carries, without padding and priority.

    Raises:
        Http2Error: more padding than payload.
    """
    if flags & PADDED:
        if not payload or payload[0] >= len(payload):
            raise Http2Error(PROTOCOL_ERROR, "a frame has more padding than payload")
        payload = payload[1 : len(payload) - payload[0]]
    return payload

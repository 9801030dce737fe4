"""gRPC over HTTP/2: length-prefixed messages in DATA, the status in the trailers."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_MESSAGE_BYTES: Final = 64 * 1024 * 1024
"""Longest message that is taken: an answer of a million tokens has 4 MiB of ids."""
STATUS_NAMES: Final = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
    "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip
_HEAD: Final = struct.Struct(">BI")
HEAD_SIZE: Final = 5


class MessageError(Exception):
    """A message that cannot be taken."""


class MessageReader:
    """Finds the messages of one stream: a DATA frame may hold several of them, or a part of one.

    Attributes:
        num_bytes: that have come of a message that is not complete.
    """

    __slots__ = ("_num_needed", "_parts", "num_bytes")

    def __init__(self) -> None:
        """Begin at the start of a message."""
        self._parts: list[bytes] = []
        self.num_bytes = 0
        self._num_needed = HEAD_SIZE

    def feed(self, data: bytes) -> list[bytes]:
        """Return the messages that `data` completes.

        Raises:
            MessageError: a message is compressed, which we never offer, or too long.
        """
        if self.num_bytes + len(data) < self._num_needed:
            self._keep(data)
            return []
        if self._parts:
            data = b"".join((*self._parts, data))
        messages = []
        position, end = 0, len(data)
        self._parts, self.num_bytes, self._num_needed = [], 0, HEAD_SIZE
        while end - position >= HEAD_SIZE:
            is_compressed, size = _HEAD.unpack_from(data, position)
            if is_compressed or size > MAX_MESSAGE_BYTES:
                raise MessageError("a compressed message" if is_compressed else f"a message of {size} bytes")
            stop = position + HEAD_SIZE + size
            if stop > end:
                self._num_needed = stop - position
                break
            messages.append(data[position + HEAD_SIZE : stop])
            position = stop
        if position < end:
            self._keep(data[position:])
        return messages

    def _keep(self, data: bytes) -> None:
        if data:
            self._parts.append(data)
            self.num_bytes += len(data)


def framed(message: bytes) -> bytes:
    """Return an uncompressed message with its length in front."""
    return _HEAD.pack(0, len(message)) + message


def status(headers: Mapping[str, str]) -> tuple[str, str]:
    """Return the status by name and its text, from trailers or from the headers of an answer without a body."""
    given = headers.get("grpc-status")
    if given is None:
        http_status = headers.get(":status", "200")
        what = f"HTTP status {http_status}" if http_status != "200" else "without a status"
        return "UNAVAILABLE" if http_status in ("429", "502", "503", "504") else "UNKNOWN", f"the call ended {what}"
    number = int(given) if given.isascii() and given.isdigit() else 2
    name = STATUS_NAMES[number] if number < len(STATUS_NAMES) else "UNKNOWN"
    return name, unquote(headers.get("grpc-message", ""), errors="replace")

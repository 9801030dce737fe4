"""Server-sent events: one JSON value an event."""

from __future__ import annotations

from typing import Final

import orjson

HEADERS: Final = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    # nginx would hold a stream back.
    (b"x-accel-buffering", b"no"),
)
DONE: Final = b"data: [DONE]\n\n"


def event(value: object) -> bytes:
    """Return the event that carries `value`."""
    return b"data: " + orjson.dumps(value) + b"\n\n"

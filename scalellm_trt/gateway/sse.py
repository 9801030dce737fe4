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
MARK: Final = "\0"
"""Stands for the text in the value of a `Frame`; a value that comes from JSON holds no such character."""
DONE: Final = b"data: [DONE]\n\n"


def event(value: object) -> bytes:
    """Return the event that carries `value`."""
    return b"data: " + orjson.dumps(value) + b"\n\n"


class Frame:
    """The events of one stream that differ in one text only."""

    __slots__ = ("_head", "_tail")

    def __init__(self, value: object) -> None:
        """Take the value of such an event, with `MARK` where the text stands."""
        self._head, _, self._tail = event(value).partition(orjson.dumps(MARK))

    def around(self, text: str) -> bytes:
        """Return the event with `text`."""
        return self._head + orjson.dumps(text) + self._tail

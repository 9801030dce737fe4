"""Server-sent events in the pieces of a body: each event with the time at which its line was complete."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

DATA = b"data:"


class NotAnEventStreamError(ValueError):
    """A line is none of the format; the message shows it."""


def events(pieces: Sequence[tuple[float, bytes]]) -> Iterator[tuple[float, bytes]]:
    """Yield (time, data) of every `data:` line; comments and other fields are passed over.

    Raises:
        NotAnEventStreamError: a line is no field.
    """
    rest, at_s = b"", 0.0
    for at_s, piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield from _data(at_s, line)
    yield from _data(at_s, rest)


def _data(at_s: float, line: bytes) -> Iterator[tuple[float, bytes]]:
    line = line.rstrip(b"\r")
    if line.startswith(DATA):
        yield at_s, line[len(DATA) :].strip()
    elif line and not line.startswith(b":") and b":" not in line:
        message = f"not a line of an event stream: {line[:80]!r}"
        raise NotAnEventStreamError(message)

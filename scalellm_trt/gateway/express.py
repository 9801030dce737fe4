"""The short way of a token: a message that differs from the one before in nothing but its token is not parsed.

Each message of a stream repeats the model's name, the request's id, parameters and shapes; equal bytes mean the same.
So do the frame and the length around a message that comes alone. Where a stream needs nothing but its text, that makes
a token much cheaper (docs/benchmarks.md).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

_INT32: Final = struct.Struct("<i")
_CONTENT_HEAD: Final = b"\x32\x04"
"""How four bytes of `ModelInferResponse.raw_output_contents` begin: field 6, length-delimited, length 4."""


class Express(Protocol):
    """What a listener offers that wants plain tokens as such."""

    def last_token(self) -> int | None:
        """Return the id in the message that was last listened to, if it was all that mattered in it."""
        ...

    def on_tokens(self, token_ids: Sequence[int]) -> bool:
        """Take what one read brought in messages that differ from that one in their ids only; may not raise.

        Returns:
            False when the listener needs the messages after all.
        """
        ...


class Mould:
    """The bytes around the token of a stream's messages."""

    __slots__ = ("_head", "_size", "_start", "_tail")

    def __init__(self, message: bytes, start: int) -> None:
        """Take a message, and where its four bytes of id begin."""
        self._head, self._tail = message[:start], message[start + _INT32.size :]
        self._start, self._size = start, len(message)

    @classmethod
    def of(cls, message: bytes, token_id: int) -> Mould | None:
        """Return the mould of a message that carries `token_id`; None if it is not clear where."""
        content = _CONTENT_HEAD + _INT32.pack(token_id)
        # Another output may hold the same number: then a later token shows which of them is the id.
        return cls(message, message.index(content) + len(_CONTENT_HEAD)) if message.count(content) == 1 else None

    def within(self, head: bytes) -> Mould:
        """Return the mould of what holds such a message after `head` and nothing else."""
        return Mould(head + self._head + bytes(_INT32.size) + self._tail, len(head) + self._start)

    def token_id(self, message: bytes) -> int | None:
        """Return the id in a message that is like the one before otherwise; None if it is not."""
        is_alike = len(message) == self._size and message.startswith(self._head) and message.endswith(self._tail)
        return _INT32.unpack_from(message, self._start)[0] if is_alike else None

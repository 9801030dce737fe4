"""What a client kept of a request while time was measured, and the answer that is read out of it afterwards."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from scalellm_trt.bench.question import Question
    from scalellm_trt.bench.records import ErrorClass


@dataclass(slots=True, kw_only=True)
class Raw:
    """One request, by the monotonic clock of the machine.

    Attributes:
        pieces: what was received, and when, in the target's own form; nothing is parsed while others are waited for.
        status: of HTTP, where there is one.
        content_type: the same.
        finish_reason: where it is not inside of the pieces.
        error: what the way to the server showed; an answer may hold another error.
    """

    sent_s: float
    end_s: float = 0.0
    pieces: list[tuple[float, bytes]] = field(default_factory=list)
    status: int | None = None
    content_type: str = ""
    finish_reason: str | None = None
    error: ErrorClass | None = None
    error_text: str | None = None
    was_cancelled: bool = False

    def fail(self, error: ErrorClass, text: str) -> None:
        """Note why it failed; the first reason is the reason."""
        if self.error is None and not self.was_cancelled:
            self.error, self.error_text = error, " ".join(text.split())[:300]


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A part of an answer with content; `num_tokens` is None where the way it came does not count."""

    at_s: float
    text: str
    num_tokens: int | None = None


@dataclass(slots=True, kw_only=True)
class Answer:
    """What a server said.

    Attributes:
        whole_text: where pieces are tokens without text; None where they have it.
        server_isl: tokens of the prompt by the server's count; None where it says none, as the next two.
        server_osl: of the answer.
        cached_tokens: of the prompt, taken from its KV cache.
    """

    pieces: list[Piece] = field(default_factory=list)
    whole_text: str | None = None
    finish_reason: str | None = None
    server_isl: int | None = None
    server_osl: int | None = None
    cached_tokens: int | None = None
    error: ErrorClass | None = None
    error_text: str | None = None

    @property
    def text(self) -> str:
        """Return all of it."""
        return "".join(piece.text for piece in self.pieces) if self.whole_text is None else self.whole_text

    def fail(self, error: ErrorClass, text: str) -> None:
        """Note why it failed; the first reason is the reason."""
        if self.error is None:
            self.error, self.error_text = error, " ".join(text.split())[:300]


class Asker(Protocol):
    """The asking end, inside of a client process and its event loop."""

    async def prepare(self, num_streams: int) -> None:
        """Have what so many requests at a time need, as far as the server lets us: no request waits for it later."""
        ...

    async def ask(self, question: Question, request_id: str, timeout_s: float) -> Raw:
        """Send a question and return what came; never raises for what a server does, ends within the timeout."""
        ...

    def give_up(self) -> None:
        """Cancel everything that is waited for; each `ask` returns with `was_cancelled`."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


class Reader(Protocol):
    """The reading end, in any process."""

    def __call__(self, raw: Raw) -> Answer:
        """Return the answer in what came."""
        ...

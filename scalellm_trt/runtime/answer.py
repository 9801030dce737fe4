"""The engine's chunks of one request in, what its client gets to see out: one response, or one every so often."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from .detokenizer import Detokenizer
from .stop_words import StopWords

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .detokenizer import TokenBytes
    from .engine_api import Chunk, FinishReason
    from .request import AnswerOptions, TextRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What is new of one sequence.

    Attributes:
        cum_log_prob: the sum from its first token on.
        num_reused_blocks: KV pages that it took over at its start, on its first part, where the engine knows.
    """

    sequence_index: int
    text: str
    token_ids: tuple[int, ...]
    log_probs: tuple[float, ...]
    cum_log_prob: float
    finish_reason: FinishReason | None
    num_reused_blocks: int | None = None


class Client(Protocol):
    """The way back to whoever asked."""

    def send(self, parts: Sequence[Part], *, is_last: bool) -> None:
        """Send one response; none may follow the last."""
        ...

    def fail(self, message: str) -> None:
        """Send an error as the last response."""
        ...

    def close(self) -> None:
        """End without a further response."""
        ...

    def is_gone(self) -> bool:
        """Return whether the client has cancelled; costs a round trip to the server process."""
        ...


class _SequenceAnswer:
    """One sequence: its text so far, and what of it has not been sent."""

    def __init__(self, index: int, request: TextRequest, token_bytes: TokenBytes) -> None:
        self._index = index
        self._options: AnswerOptions = request.options
        self._stop_token_ids = request.generate.sampling.stop_token_ids
        self._detokenizer = Detokenizer(token_bytes)
        self._stop_words = StopWords(request.options.stop_words)
        self._num_tokens = 0
        self._cum_log_prob = 0.0
        self._text = ""
        self._ids: list[int] = []
        self._log_probs: list[float] = []
        self._num_reused_blocks: int | None = None
        self._has_begun = False
        self.finish_reason: FinishReason | None = None
        self.last_sent = float("-inf")

    def take(self, chunk: Chunk) -> None:
        """Add new tokens; sets `finish_reason` when they end the sequence."""
        ids, reason = chunk.token_ids, chunk.finish_reason
        if not self._has_begun:
            self._num_reused_blocks = chunk.num_reused_blocks
        is_stop_token = reason == "stop" and bool(ids) and ids[-1] in self._stop_token_ids
        num_shown = len(ids) - is_stop_token
        if self._options.stop_words:
            num_taken = self._take_watching(ids[:num_shown])
            if self._stop_words.has_stopped:
                ids, reason = ids[:num_taken], "stop"
        elif self._options.text:
            self._text += self._detokenizer.feed(ids[:num_shown])
        if reason is not None and not self._stop_words.has_stopped:
            self._text += self._stop_words.feed(self._detokenizer.finish()) + self._stop_words.finish()
        self._num_tokens += len(ids)
        self._ids += ids
        if chunk.log_probs:
            log_probs = chunk.log_probs[: len(ids)]
            self._log_probs += log_probs
            self._cum_log_prob += sum(log_probs)
        self.finish_reason = reason

    def _take_watching(self, ids: Sequence[int]) -> int:
        """Add text token by token until a stop word is complete; return how many tokens that took."""
        for position, index in enumerate(ids):
            text = self._detokenizer.feed((index,))
            is_watched = self._num_tokens + position >= self._options.min_tokens
            self._text += self._stop_words.feed(text) if is_watched else text
            if self._stop_words.has_stopped:
                return position + 1
        return len(ids)

    def has_news(self) -> bool:
        """Return whether there is something that the client would see."""
        wants_tokens = self._options.output_ids or self._options.log_probs or not self._options.text
        return bool(self._text) or (wants_tokens and bool(self._ids))

    def take_part(self) -> Part:
        """Return what is new since the last call."""
        part = Part(
            sequence_index=self._index,
            text=self._text,
            token_ids=tuple(self._ids),
            log_probs=tuple(self._log_probs),
            cum_log_prob=self._cum_log_prob,
            finish_reason=self.finish_reason,
            num_reused_blocks=self._num_reused_blocks,
        )
        self._has_begun, self._num_reused_blocks = True, None
        self._text = ""
        self._ids.clear()
        self._log_probs.clear()
        return part


class Answer:
    """One request's answer. Used from the engine's thread only, once it has been handed to the engine."""

    def __init__(
        self,
        request: TextRequest,
        client: Client,
        token_bytes: TokenBytes,
        spacing_s: Callable[[], float],
        *,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare to answer.

        Args:
            request: what was asked.
            client: gets the responses.
            token_bytes: the vocabulary.
            spacing_s: how long a stream's next response is to wait after its last one, at this moment.
            now: a clock in seconds.
        """
        num_sequences = request.generate.sampling.num_sequences
        self._sequences = [_SequenceAnswer(index, request, token_bytes) for index in range(num_sequences)]
        self._num_open = num_sequences
        self._client = client
        self._spacing_s = spacing_s
        self._now = now
        # An engine may call from several threads, and who watches over clients has one of its own.
        self._lock = threading.Lock()
        self.is_stream = request.options.stream
        self.is_done = False

    def take(self, chunk: Chunk) -> bool:
        """Be the engine's `Sink`: send what is due, and return whether this sequence is to go on."""
        with self._lock:
            return self._take(chunk)

    def _take(self, chunk: Chunk) -> bool:
        if self.is_done:
            return False
        if chunk.finish_reason == "error":
            self.is_done = True
            self._client.fail(chunk.error or "the engine failed")
            return False
        sequence = self._sequences[chunk.sequence_index]
        sequence.take(chunk)
        if sequence.finish_reason is not None:
            self._num_open -= 1
        if self.is_stream:
            self._send_new(sequence)
        elif not self._num_open:
            self._send(self._sequences)
        return sequence.finish_reason is None

    def has_lost_client(self) -> bool:
        """Ask whether the client has gone; if so, end the answer."""
        with self._lock:
            if not self.is_done and self._client.is_gone():
                self.is_done = True
                self._client.close()
                return True
            return False

    def _send_new(self, sequence: _SequenceAnswer) -> None:
        """Send what is new of a streamed sequence if it has ended or is due."""
        if sequence.finish_reason is not None:
            self._send([sequence])
        elif sequence.has_news():
            now = self._now()
            if now - sequence.last_sent >= self._spacing_s():
                sequence.last_sent = now
                self._send([sequence])

    def _send(self, sequences: Sequence[_SequenceAnswer]) -> None:
        self.is_done = not self._num_open
        self._client.send([sequence.take_part() for sequence in sequences], is_last=self.is_done)

"""Tokens of one sequence in, text that may be shown out: UTF-8 safe, stop strings held back, tokens with their text."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scalellm_trt.runtime.detokenizer import Detokenizer
from scalellm_trt.runtime.stop_words import StopWords

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scalellm_trt.gateway.contract import TokenChunk
    from scalellm_trt.runtime.detokenizer import TokenBytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownToken:
    """A token of the shown text, its log probability, and the character of the answer at which it begins."""

    raw: bytes
    log_prob: float
    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """New text, possibly none; `finish_reason` on the last one."""

    text: str
    tokens: tuple[ShownToken, ...]
    finish_reason: str | None

    def then(self, later: Delta) -> Delta:
        """Return both as one."""
        return Delta(text=self.text + later.text, tokens=self.tokens + later.tokens, finish_reason=later.finish_reason)


class AnswerText:
    """One sequence from its first token to its last."""

    def __init__(
        self, token_bytes: TokenBytes, stop: Sequence[str], hidden_ids: frozenset[int], min_tokens: int
    ) -> None:
        """Begin an answer.

        Args:
            token_bytes: the model's vocabulary.
            stop: texts that end it; neither they nor a part of them is shown.
            hidden_ids: end tokens; the one that ended the answer is not shown.
            min_tokens: a stop text counts only in the text after this many tokens, as the model sees it.
        """
        self._token_bytes = token_bytes
        self._detokenizer = Detokenizer(token_bytes)
        self._stop_words = StopWords(stop)
        self._hidden_ids = hidden_ids
        self._min_tokens = min_tokens
        self._held: deque[ShownToken] = deque()
        self._num_read = 0
        self._num_shown = 0
        self.num_tokens = 0
        self.finish_reason: str | None = None

    def take(self, chunk: TokenChunk) -> Delta:
        """Return what `chunk` lets be shown; nothing follows a delta with a finish reason."""
        reason, ids = chunk.finish_reason, chunk.token_ids
        ends_hidden = reason == "stop" and bool(ids) and ids[-1] in self._hidden_ids
        text = ""
        for position, token_id in enumerate(ids[: len(ids) - ends_hidden]):
            if chunk.log_probs:
                self._hold(token_id, chunk.log_probs[position])
            piece = self._detokenizer.feed((token_id,))
            self._num_read += len(piece)
            is_watched = self.num_tokens + position >= self._min_tokens
            text += self._stop_words.feed(piece) if is_watched else piece
            if self._stop_words.has_stopped:
                break
        self.num_tokens += len(ids)
        if self._stop_words.has_stopped:
            reason = "stop"
        elif reason is not None:
            text += self._stop_words.feed(self._detokenizer.finish()) + self._stop_words.finish()
        self.finish_reason = reason
        self._num_shown += len(text)
        return Delta(text=text, tokens=self._release(), finish_reason=reason)

    def take_plain(self, token_ids: Sequence[int]) -> str:
        """Return the text of tokens without log probabilities, in an answer without stop texts, that do not end it."""
        text = self._detokenizer.feed(token_ids)
        self.num_tokens += len(token_ids)
        self._num_shown += len(text)
        self._num_read = self._num_shown
        return text

    def _hold(self, token_id: int, log_prob: float) -> None:
        raw = self._token_bytes.join((token_id,))
        self._held.append(ShownToken(raw=raw, log_prob=log_prob, offset=self._num_read))

    def _release(self) -> tuple[ShownToken, ...]:
        """Return the tokens whose text is shown by now; at the end without a stop text, all of them."""
        is_all = self.finish_reason is not None and not self._stop_words.has_stopped
        released = []
        while self._held and (is_all or self._held[0].offset < self._num_shown):
            released.append(self._held.popleft())
        return tuple(released)

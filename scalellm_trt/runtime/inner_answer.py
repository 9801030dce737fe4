"""Responses of Triton's C++ `tensorrtllm` backend in, chunks of a request's sequences out.

The backend says neither that a response is a sequence's last nor why it ended. What is known: it ends at max_tokens,
at a stop token, which it may or may not deliver, and when it is told to. So tokens that reach max_tokens are "length",
and an end before that is "stop".
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from .engine_api import Chunk

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from .engine_api import FinishReason, SamplingParams, Sink
    from .inner_request import InnerRequest


class InnerAnswer:
    """The sequences that one inner request makes, on their way to the sink."""

    def __init__(
        self, inner: InnerRequest, sampling: SamplingParams, slots: Sequence[tuple[int, ...]], sink: Sink
    ) -> None:
        """Expect answers.

        Args:
            inner: what was asked.
            sampling: of the request that it was asked for.
            slots: for each sequence that the engine makes, the request's sequences that it stands for.
            sink: takes the chunks.
        """
        self._inner = inner
        self._sampling = sampling
        self._sink = sink
        self._open = {index: list(indices) for index, indices in enumerate(slots)}
        self._num_tokens = [0] * len(slots)
        self._num_reused_blocks: int | None = None
        self._goes_on_inside = False  # the engine would continue a sequence that has ended here
        self._lock = threading.Lock()

    @property
    def has_enough(self) -> bool:
        """Whether every sequence has ended though the engine would go on."""
        return self._goes_on_inside and not self._open

    def take(self, outputs: Mapping[str, NDArray[Any]]) -> None:
        """Pass on one response."""
        with self._lock:
            self._take(outputs)

    def pass_by(self, token_ids: Sequence[int]) -> bool:
        """Count tokens of the one sequence that came with nothing else and end nothing.

        Returns:
            False where one may end the sequence: nothing is counted, and its response must be taken.
        """
        with self._lock:
            num_tokens = self._num_tokens[0] + len(token_ids)
            ends = num_tokens >= self._sampling.max_tokens or not self._sampling.stop_token_ids.isdisjoint(token_ids)
            if ends or 0 not in self._open:
                return False
            self._num_tokens[0] = num_tokens
            return True

    def finish(self) -> None:
        """End what the engine ended without a last token."""
        with self._lock:
            for slot in list(self._open):
                self._offer(slot, (), (), "stop")

    def fail(self, message: str) -> None:
        """End the request with an error, unless it is over."""
        with self._lock:
            if self._open:
                [first, *_] = next(iter(self._open.values()))
                self._open.clear()
                self._sink(Chunk(sequence_index=first, token_ids=(), finish_reason="error", error=message))

    def _take(self, outputs: Mapping[str, NDArray[Any]]) -> None:
        slot = int(outputs["sequence_index"].ravel()[0]) if "sequence_index" in outputs else 0
        if slot not in self._open:
            return
        ids = _new_ids(outputs)
        if "kv_cache_reused_blocks" in outputs:
            self._num_reused_blocks = int(outputs["kv_cache_reused_blocks"].ravel()[0])
        log_probs = _new_log_probs(outputs, len(ids))
        ids, reason = self._ending(slot, ids)
        engine_ends = reason == "length" or not self._inner.is_stream or self._was_told(ids)
        self._offer(slot, ids, log_probs[: len(ids)], reason)
        self._goes_on_inside |= slot not in self._open and not engine_ends

    def _ending(self, slot: int, ids: tuple[int, ...]) -> tuple[tuple[int, ...], FinishReason | None]:
        """Return the ids that count, and why the sequence ends with them, if it does."""
        sampling, before = self._sampling, self._num_tokens[slot]
        for position, token_id in enumerate(ids):
            if token_id in sampling.stop_token_ids and before + position >= sampling.min_tokens:
                return ids[: position + 1], "stop"
        if before + len(ids) >= sampling.max_tokens:
            return ids, "length"
        return ids, None if self._inner.is_stream else "stop"

    def _was_told(self, ids: tuple[int, ...]) -> bool:
        return bool(ids) and ids[-1] in self._inner.engine_stop_ids

    def _offer(
        self, slot: int, ids: tuple[int, ...], log_probs: tuple[float, ...], reason: FinishReason | None
    ) -> None:
        self._num_tokens[slot] += len(ids)
        if not ids and reason is None:
            return
        chunks = (
            Chunk(
                sequence_index=index,
                token_ids=ids,
                log_probs=log_probs,
                finish_reason=reason,
                num_reused_blocks=self._num_reused_blocks,
            )
            for index in self._open[slot]
        )
        going_on = [chunk.sequence_index for chunk in chunks if self._sink(chunk)]
        if reason is None and going_on:
            self._open[slot] = going_on
        else:
            del self._open[slot]


def _new_ids(outputs: Mapping[str, NDArray[Any]]) -> tuple[int, ...]:
    """Return the tokens of a response: output_ids is (1, 1, n), sequence_length (1, 1)."""
    ids = outputs["output_ids"].ravel()
    return tuple(ids[: int(outputs["sequence_length"].ravel()[0])].tolist())


def _new_log_probs(outputs: Mapping[str, NDArray[Any]], num_tokens: int) -> tuple[float, ...]:
    """Return the values of the new tokens, also from a backend that repeats those before them."""
    if "output_log_probs" not in outputs or not num_tokens:
        return ()
    return tuple(outputs["output_log_probs"].ravel()[-num_tokens:].tolist())

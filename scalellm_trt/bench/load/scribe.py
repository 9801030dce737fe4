"""What a client process kept of a request in; its record out: the answer is read and counted here, off the clock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scalellm_trt.bench.records import RequestRecord

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scalellm_trt.bench.load.exchange import Asked
    from scalellm_trt.bench.targets.raw import Piece, Reader
    from scalellm_trt.bench.tokens import ServedTokenizer


class Scribe:
    """Makes records of one run."""

    def __init__(self, tokenizer: ServedTokenizer, zero_s: float) -> None:
        """Take the served tokenizer, and when the run began by the machine's monotonic clock."""
        self._tokenizer, self._zero_s = tokenizer, zero_s

    def record(self, asked: Asked, reader: Reader, *, cell: int, request_id: str, has_turns: bool) -> RequestRecord:
        """Return the record of a request."""
        raw = asked.raw
        answer = reader(raw)
        counts = self._counts(answer.pieces)
        return RequestRecord(
            cell=cell,
            index=asked.job,
            request_id=request_id,
            conversation=asked.job if has_turns else None,
            turn=asked.turn,
            scheduled_s=self._at(asked.due_s),
            sent_s=self._at(raw.sent_s),
            chunk_s=tuple(self._at(piece.at_s) for piece in answer.pieces),
            chunk_tokens=counts,
            end_s=self._at(raw.end_s),
            isl=len(self._tokenizer.encode(self._tokenizer.render(asked.messages))),
            osl=sum(counts),
            server_isl=answer.server_isl,
            server_osl=answer.server_osl,
            cached_tokens=answer.cached_tokens,
            max_tokens=asked.max_tokens,
            finish_reason=answer.finish_reason,
            error=None if raw.was_cancelled else answer.error,
            error_text=None if raw.was_cancelled else answer.error_text,
            was_cancelled=raw.was_cancelled,
            is_warmup=asked.is_warmup,
        )

    def _at(self, clock_s: float) -> float:
        return round(clock_s - self._zero_s, 6)

    def _counts(self, pieces: Sequence[Piece]) -> tuple[int, ...]:
        """Return the tokens of each piece: as the engine counted them where it does, else by the tokenizer."""
        known = [piece.num_tokens for piece in pieces if piece.num_tokens is not None]
        if len(known) == len(pieces):
            return tuple(known)
        return self._tokenizer.chunk_counts([piece.text for piece in pieces])

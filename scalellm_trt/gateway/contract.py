"""The seam between a job and the tensors of the model that makes its tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scalellm_trt.gateway.errors import ApiError
    from scalellm_trt.gateway.upstream import Message


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenChunk:
    """New tokens of one sequence.

    Attributes:
        log_probs: one for each token where they were asked for.
        finish_reason: why the sequence ended, on its last chunk.
        num_reused_blocks: KV pages of the prompt that the engine had already; on one chunk at least, where it says so.
    """

    index: int
    token_ids: tuple[int, ...]
    log_probs: tuple[float, ...] = ()
    finish_reason: str | None = None
    num_reused_blocks: int | None = None


class Answer(Protocol):
    """Reads what a model answers to one request.

    Attributes:
        knows_stop_texts: the model ends at them by itself; else it must be cancelled where the text shows one.
    """

    knows_stop_texts: bool

    def take(self, response: Message) -> Sequence[TokenChunk]:
        """Return the tokens in a `ModelInferResponse`, at most one chunk for each sequence."""
        ...

    def pass_by(self, token_ids: Sequence[int]) -> bool:
        """Take note of tokens whose responses are not taken: of the only sequence, with nothing else beside them.

        Returns:
            False where they may end the sequence: their responses must be taken after all.
        """
        ...

    def finish(self) -> Sequence[TokenChunk]:
        """Return the ends of sequences that the model has ended without saying so; called after the last response."""
        ...

    def refusal(self, message: str) -> ApiError:
        """Return what an error text of the server or the model means to the client."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A `ModelInferRequest`, and who reads its answer."""

    request: Message
    answer: Answer

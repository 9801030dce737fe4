"""The seam between the text model and an engine: requests in, chunks of tokens out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

FinishReason = Literal["stop", "length", "cancelled", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How to choose tokens. `temperature` None or 0 means greedy.

    `stop_token_ids` end a sequence (the end-of-sequence ids among them); the last one is not delivered as text.
    """

    max_tokens: int
    min_tokens: int = 0
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    num_sequences: int = 1
    stop_token_ids: frozenset[int] = field(default_factory=frozenset)
    log_probs: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateRequest:
    """A prompt as token ids, and how to continue it."""

    input_ids: tuple[int, ...]
    sampling: SamplingParams


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """New tokens of one sequence since its last chunk; `finish_reason` is set on the last one of that sequence.

    `error` says why, when `finish_reason` is "error".
    """

    sequence_index: int
    token_ids: tuple[int, ...]
    log_probs: tuple[float, ...] = ()
    finish_reason: FinishReason | None = None
    error: str | None = None


class Generation(Protocol):
    """A request that the engine has taken."""

    def cancel(self) -> None:
        """Stop it; its blocks are free after the step in progress. No chunk follows. May be called at any time."""
        ...


class GenerationEngine(Protocol):
    """An engine with in-flight batching: requests join and leave while others run."""

    def submit(self, request: GenerateRequest, sink: Callable[[Chunk], None]) -> Generation:
        """Take a request; `sink` is called from the engine's thread, in order, once per step at most per sequence.

        Raises:
            ValueError: the request can never be served; the message names the field and the limit.
        """
        ...

    def close(self) -> None:
        """Stop the engine's thread; live requests get an "error" chunk."""
        ...

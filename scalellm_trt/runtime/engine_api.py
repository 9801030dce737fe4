"""The seam between the text model and an engine: requests in, chunks of tokens out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

FinishReason = Literal["stop", "length", "error"]


class InvalidRequestError(ValueError):
    """The request can never be served; the message begins with the field and states the limit."""


class UnavailableError(Exception):
    """The request is good, but the engine cannot take it now; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How to choose tokens. `temperature` None means greedy: the most probable token each time.

    Attributes:
        max_tokens: the answer has at most this many tokens.
        min_tokens: no stop token is chosen before this many tokens.
        temperature: greater than 0; probabilities are those of `logits / temperature`.
        top_k: sample from the k most probable tokens; None from all.
        top_p: sample from the fewest tokens whose probabilities reach this sum; None from all.
        seed: the same seed gives the same tokens for a request that runs alone; None draws one.
        repetition_penalty: divides the logits (multiplies, where negative) of tokens in prompt or answer.
        presence_penalty: is subtracted from the logits of tokens in the answer, once.
        frequency_penalty: is subtracted from the logits of tokens in the answer, as often as they occur.
        num_sequences: answers to make; sequence 0 is the one that a request for one answer gets.
        stop_token_ids: ids that end a sequence; the one that did is delivered as its last token.
        stop_word_ids: tokens whose text is a stop word: an engine may end at them; whoever shows the text decides.
        bad_words: sequences of ids that must not be produced; each has at least one id.
        token_bias: (id, value added to that token's logit), ids may repeat.
        log_probs: deliver the logarithm of each chosen token's probability (before temperature and penalties).
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
    stop_word_ids: frozenset[int] = field(default_factory=frozenset)
    bad_words: tuple[tuple[int, ...], ...] = ()
    token_bias: tuple[tuple[int, float], ...] = ()
    log_probs: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateRequest:
    """A prompt as token ids, and how to continue it.

    Attributes:
        prompt_field: what messages call the prompt.
        is_stream: chunks are wanted as tokens are made; otherwise an engine may give all of them in one.
        reports_reuse: say how much of the prompt was in the KV cache already, where the engine knows.
    """

    input_ids: tuple[int, ...]
    sampling: SamplingParams
    prompt_field: str = "input_ids"
    is_stream: bool = True
    reports_reuse: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """New tokens of one sequence since its last chunk; `finish_reason` is set on the last one of that sequence.

    Attributes:
        sequence_index: which of the request's sequences, from 0.
        token_ids: what the engine chose, a stop token that ended the sequence included.
        log_probs: one for each token, if the request asked for them.
        finish_reason: why the sequence ended; None while it goes on. "error" ends all sequences of the request.
        error: what happened, when `finish_reason` is "error".
        num_reused_blocks: KV pages that the sequence took over at its start; on one of its chunks at least, where the
            engine knows.
    """

    sequence_index: int
    token_ids: tuple[int, ...]
    log_probs: tuple[float, ...] = ()
    finish_reason: FinishReason | None = None
    error: str | None = None
    num_reused_blocks: int | None = None


Sink = Callable[[Chunk], bool]
"""Takes a chunk and says whether that sequence is to go on; after False its place is freed and no chunk follows."""


class Generation(Protocol):
    """A request that the engine has taken."""

    def cancel(self) -> None:
        """Stop every sequence; the blocks are free after the next step. No chunk follows. From any thread."""
        ...


class GenerationEngine(Protocol):
    """An engine with in-flight batching: requests join and leave while others run."""

    def submit(self, request: GenerateRequest, sink: Sink) -> Generation:
        """Take a request; `sink` is called from a thread of the engine's, in order within each sequence.

        Raises:
            InvalidRequestError: the request can never be served.
            UnavailableError: the queue is full, or the engine is being closed.
        """
        ...

    def close(self) -> None:
        """Stop the engine's thread and wait for it; live and waiting requests get an "error" chunk."""
        ...

"""A pipeline that counts upwards instead of thinking, with the strictness of the real one."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from scalellm_trt.runtime.engine_api import Chunk, FinishReason, GenerateRequest, SamplingParams
from scalellm_trt.runtime.settings import ServiceSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

TOKENS_PER_BLOCK = 4


def settings(**changes: object) -> ServiceSettings:
    """Return limits small enough to be met: 2 sequences at a time, 8 pages of 4 tokens."""
    values: dict[str, object] = {
        "engine": "openvino",
        "engine_directory": "engine",
        "vocab_size": 512,
        "eos_token_ids": (2,),
        "max_batch_size": 2,
        "max_input_len": 24,
        "max_seq_len": 40,
        "max_num_tokens": 16,
        "max_queue_size": 4,
        "kv_cache_tokens": 8 * TOKENS_PER_BLOCK,
        "tokens_per_block": TOKENS_PER_BLOCK,
        "response_spacing_ms": 0.0,
        "cancel_poll_ms": 0.0,
    }
    return ServiceSettings(**{**values, **changes})  # type: ignore[arg-type]


@dataclass(slots=True)
class FakeSequence:
    """Answers last prompt id + 1, + 2, …; reading after a cancel is an error, as in the real pipeline."""

    input_ids: tuple[int, ...]
    sampling: SamplingParams
    seed: int
    pipeline: FakePipeline
    num_made: int = 0
    num_read: int = 0
    is_cancelled: bool = False
    is_lost: bool = False

    @property
    def is_over(self) -> bool:
        return self.is_cancelled or self.is_lost or self.finish_reason is not None

    @property
    def num_reused_blocks(self) -> int:
        """As if every prompt had been there before, its last token left out."""
        return (len(self.input_ids) - 1) // TOKENS_PER_BLOCK

    @property
    def tokens(self) -> list[int]:
        return [self.input_ids[-1] + 1 + index for index in range(self.num_made)]

    @property
    def finish_reason(self) -> FinishReason | None:
        if self.tokens and self.tokens[-1] in self.sampling.stop_token_ids:
            return "stop"
        return "length" if self.num_made == self.sampling.max_tokens else None

    @property
    def num_blocks(self) -> int:
        return -(-(len(self.input_ids) + max(0, self.num_made - 1)) // TOKENS_PER_BLOCK)

    def read(self) -> tuple[Sequence[int], Sequence[float], FinishReason | None]:
        assert not self.is_cancelled, "read after cancel"
        if self.is_lost:
            return [], [], "error"
        new = self.tokens[self.num_read :]
        self.num_read = self.num_made
        log_probs = [-1.0] * len(new) if self.sampling.log_probs else []
        return new, log_probs, self.finish_reason if new else None

    def cancel(self) -> None:
        assert not self.pipeline.is_stepping, "cancelled in the middle of a step"
        self.is_cancelled = True


@dataclass(slots=True)
class FakePipeline:
    """Ends a step when `may_step` is set; loses a sequence when the pages run out."""

    limits: ServiceSettings
    may_step: threading.Event = field(default_factory=threading.Event)
    sequences: list[FakeSequence] = field(default_factory=list)
    fault: Exception | None = None
    refusal: Exception | None = None
    is_stepping: bool = False
    num_steps: int = 0
    most_blocks: int = 0
    most_sequences: int = 0
    started: list[FakeSequence] = field(default_factory=list)

    def add(self, input_ids: Sequence[int], sampling: SamplingParams, seed: int) -> FakeSequence:
        if self.refusal is not None:
            raise self.refusal
        assert not self.is_stepping, "a sequence came in the middle of a step"
        sequence = FakeSequence(tuple(input_ids), sampling, seed, self)
        self.sequences.append(sequence)
        self.started.append(sequence)
        return sequence

    def start_step(self) -> None:
        assert not self.is_stepping, "two steps at once"
        self.sequences = [sequence for sequence in self.sequences if not sequence.is_over]
        self.is_stepping = bool(self.sequences)

    def finish_step(self) -> None:
        if not self.is_stepping:
            return
        assert self.may_step.wait(5), "nobody let the pipeline step"
        self.is_stepping = False
        self.num_steps += 1
        if self.fault is not None:
            raise self.fault
        self._note_usage()
        for sequence in self.sequences:
            if not sequence.is_over:
                sequence.num_made += 1
        self._note_usage()

    def _note_usage(self) -> None:
        used = sum(sequence.num_blocks for sequence in self.sequences)
        for sequence in reversed(self.sequences):
            if used <= self.limits.num_kv_blocks:
                break
            sequence.is_lost = True
            used -= sequence.num_blocks
        self.most_blocks = max(self.most_blocks, used)
        self.most_sequences = max(self.most_sequences, len(self.sequences))


class Collector:
    """A sink that keeps every chunk; `stop_after` tokens it wants no more."""

    def __init__(self, stop_after: int | None = None, on_chunk: Callable[[Chunk], None] = lambda _: None) -> None:
        self.chunks: list[Chunk] = []
        self.over = threading.Event()
        self._stop_after = stop_after
        self._on_chunk = on_chunk

    def __call__(self, chunk: Chunk) -> bool:
        self._on_chunk(chunk)
        self.chunks.append(chunk)
        is_enough = self._stop_after is not None and len(self.ids(chunk.sequence_index)) >= self._stop_after
        if is_enough or (chunk.finish_reason is not None and self.num_over == len(self.indices)):
            self.over.set()
        return not is_enough

    @property
    def indices(self) -> set[int]:
        return {chunk.sequence_index for chunk in self.chunks}

    @property
    def num_over(self) -> int:
        return sum(chunk.finish_reason is not None for chunk in self.chunks)

    @property
    def error(self) -> str | None:
        return self.chunks[-1].error if self.chunks else None

    def ids(self, index: int = 0) -> list[int]:
        return [token for chunk in self.chunks if chunk.sequence_index == index for token in chunk.token_ids]

    def wait(self) -> Collector:
        assert self.over.wait(5), f"not over: {self.chunks}"
        return self


def request(prompt_len: int = 4, max_tokens: int = 3, first_id: int = 10, **sampling: object) -> GenerateRequest:
    """Return a request whose last prompt id is first_id + prompt_len - 1."""
    return GenerateRequest(
        input_ids=tuple(range(first_id, first_id + prompt_len)),
        sampling=SamplingParams(max_tokens=max_tokens, **sampling),  # type: ignore[arg-type]
    )

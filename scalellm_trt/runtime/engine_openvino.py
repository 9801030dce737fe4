"""The OpenVINO engine behind `EngineLoop`: a paged model that is stepped by hand, and what it can not do."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from .block_pool import BlockPool
from .engine_loop import EngineLoop
from .paged_model import PagedModel, StepInputs
from .paged_sequence import PagedSequence
from .step_plan import plan_step

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from .engine_api import SamplingParams
    from .settings import ServiceSettings
    from .step_plan import Slice

KERNEL_CACHE_ENTRIES = 32
"""Kernels that OpenVINO keeps for step sizes it has met; 5000 by default.

Memory grows with each new number of tokens in a step until all 1..max_num_tokens were met, then it is flat: by 560 MB
with 5000 entries, by 330 MB with 32 (135M model, 256 tokens). A second pass over 85 step sizes took as long with both.
"""

UNSUPPORTED_INPUTS: Mapping[str, str] = MappingProxyType(
    {
        "return_context_logits": "the OpenVINO engine does not give logits out",
        "return_generation_logits": "the OpenVINO engine does not give logits out",
        "guided_decoding_guide_type": "guided decoding is not available on the OpenVINO engine",
        "guided_decoding_guide": "guided decoding is not available on the OpenVINO engine",
        "lora_task_id": "LoRA adapters are not available on the OpenVINO engine",
        "lora_weights": "LoRA adapters are not available on the OpenVINO engine",
        "lora_config": "LoRA adapters are not available on the OpenVINO engine",
        "prompt_embedding_table": "prompt tuning is not available on the OpenVINO engine",
        "prompt_table_extra_id": "prompt tuning is not available on the OpenVINO engine",
        "prompt_vocab_size": "prompt tuning is not available on the OpenVINO engine",
        "decoder_text_input": "the model has no encoder",
    }
)
"""Inputs of the contract that this engine refuses where they would change something, and why."""


def create(
    settings: ServiceSettings, directory: Path, *, on_step: Callable[[], None], log: Callable[[str], None]
) -> EngineLoop:
    """Load the engine in `directory` and start it; arguments as for `EngineLoop`."""
    return EngineLoop(settings, lambda: OpenVinoPipeline(settings, directory), on_step=on_step, log=log)


def compile_properties(settings: ServiceSettings) -> dict[str, object]:
    """Return what OpenVINO is told when it compiles the model."""
    # Left alone, OpenVINO computes in bfloat16 where the processor has it: other numbers than everywhere else, and
    # slower ones (Xeon with AVX512-BF16, without AMX: 54 ms a step of 16 streams against 32).
    properties: dict[str, object] = {
        "KV_CACHE_PRECISION": settings.kv_cache_precision,
        "INFERENCE_PRECISION_HINT": "f32",
        "CPU_RUNTIME_CACHE_CAPACITY": str(KERNEL_CACHE_ENTRIES),
    }
    if settings.num_threads is not None:
        properties["INFERENCE_NUM_THREADS"] = settings.num_threads
    return properties


class OpenVinoPipeline:
    """A `Pipeline` over the paged model: ids in, ids out, no tokenizer."""

    def __init__(self, settings: ServiceSettings, directory: Path) -> None:
        """Compile the model in `directory` (openvino_model.xml) and set up its KV cache."""
        self._model = PagedModel(directory, settings.num_kv_blocks, compile_properties(settings))
        self._pool = BlockPool(settings.num_kv_blocks, settings.tokens_per_block, has_reuse=settings.kv_cache_reuse)
        self._max_num_tokens = settings.max_num_tokens
        self._is_chunked = settings.chunked_context
        self._sequences: list[PagedSequence] = []  # in order of arrival
        self._slices: list[Slice] = []
        self._choosing: list[PagedSequence] = []  # those that the running step gives logits for, in their order

    def add(self, input_ids: Sequence[int], sampling: SamplingParams, seed: int) -> PagedSequence:
        """Take a prompt; see `Pipeline.add`."""
        sequence = PagedSequence(input_ids, sampling, seed, self._leave)
        self._sequences.append(sequence)
        return sequence

    def start_step(self) -> None:
        """Begin a step; see `Pipeline.start_step`."""
        if not self._sequences:
            return
        self._slices = plan_step(self._sequences, self._pool, self._max_num_tokens, is_chunked=self._is_chunked)
        self._choosing = [part.sequence for part in self._slices if part.has_end]
        self._model.start(step_inputs(self._slices))

    def finish_step(self) -> None:
        """End the step and choose the tokens; see `Pipeline.finish_step`."""
        if not self._slices:
            return
        logits = self._model.wait()
        for part in self._slices:
            part.sequence.advance(part.num_tokens, self._pool)
        for sequence, row, best in zip(self._choosing, logits, logits.argmax(axis=1).tolist(), strict=False):
            sequence.choose(row, best)
            if sequence.finish_reason is not None:
                self._leave(sequence)
        self._slices = []

    def _leave(self, sequence: PagedSequence) -> None:
        if sequence in self._sequences:
            self._sequences.remove(sequence)
            sequence.give_up(self._pool)


def step_inputs(slices: Sequence[Slice]) -> StepInputs:
    """Return the arrays for a step; a step without the end of any sequence asks for one row, which nobody reads."""
    counts = np.array([part.num_tokens for part in slices], np.int32)
    past_lens = np.array([part.sequence.num_cached for part in slices], np.int32)
    blocks = [part.blocks for part in slices]
    begins = _begins(counts)
    ends = [begin + part.num_tokens - 1 for begin, part in zip(begins.tolist(), slices, strict=False) if part.has_end]
    return StepInputs(
        input_ids=np.concatenate([part.sequence.due_ids(part.num_tokens) for part in slices]),
        position_ids=np.arange(begins[-1], dtype=np.int64) + np.repeat(past_lens - begins[:-1], counts),
        past_lens=past_lens,
        subsequence_begins=begins,
        block_indices=np.array([block for ones in blocks for block in ones], np.int32),
        block_indices_begins=_begins(np.array([len(ones) for ones in blocks], np.int32)),
        max_context_len=np.array((past_lens + counts).max(), np.int32),
        logits_indices=np.array(ends or [0], np.int64),
    )


def _begins(counts: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return where each part begins, and the end of the last one: (len(counts) + 1,)."""
    begins = np.zeros(len(counts) + 1, np.int32)
    np.cumsum(counts, out=begins[1:])
    return begins

"""The OpenVINO GenAI pipeline behind `EngineLoop`: what it is asked for, and what it can not do."""

from __future__ import annotations

import itertools
import sys
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from .engine_loop import EngineLoop

if TYPE_CHECKING:
    import types
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from .engine_api import FinishReason, SamplingParams
    from .settings import ServiceSettings

KERNEL_CACHE_ENTRIES = 32
"""Kernels that OpenVINO keeps for step sizes it has met; 5000 by default.

Memory grows with each new number of tokens in a step until all 1..max_num_tokens were met, then it is flat: by 560 MB
with 5000 entries, by 330 MB with 32 (135M model, 256 tokens). A second pass over 85 step sizes took as long with both.
"""

UNSUPPORTED_INPUTS: Mapping[str, str] = MappingProxyType(
    {
        "bad_words": "the OpenVINO engine cannot forbid tokens",
        # OpenVINO GenAI 2026.4 adds them to negative logits instead of subtracting them, so that a token with a
        # negative logit becomes more probable each time it is chosen.
        "presence_penalty": "the OpenVINO engine computes it wrongly; use repetition_penalty",
        "frequency_penalty": "the OpenVINO engine computes it wrongly; use repetition_penalty",
        "embedding_bias_words": "the OpenVINO engine cannot change logits",
        "embedding_bias_weights": "the OpenVINO engine cannot change logits",
        "return_context_logits": "the OpenVINO engine does not give logits out",
        "return_generation_logits": "the OpenVINO engine does not give logits out",
        "return_perf_metrics": "the OpenVINO engine does not measure single requests",
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


class OpenVinoPipeline:
    """`openvino_genai.ContinuousBatchingPipeline` as a `Pipeline`: ids in, ids out, no tokenizer."""

    def __init__(self, settings: ServiceSettings, directory: Path) -> None:
        """Compile the model in `directory` (openvino_model.xml, config.json) and set up its KV cache."""
        # `import openvino` would report to a web service from a thread of its own; without this package it does not.
        sys.modules.setdefault("openvino_telemetry", cast("types.ModuleType", None))
        import openvino
        import openvino_genai

        self._genai = openvino_genai
        self._tensor = openvino.Tensor
        self._eos_token_id = settings.eos_token_ids[0]
        self._next_id = itertools.count()
        # Left alone, OpenVINO computes in bfloat16 where the processor has it: other numbers than everywhere else, and
        # slower ones (Xeon with AVX512-BF16, without AMX: 54 ms a step of 16 streams against 32).
        properties: dict[str, object] = {
            "KV_CACHE_PRECISION": settings.kv_cache_precision,
            "INFERENCE_PRECISION_HINT": "f32",
            "CPU_RUNTIME_CACHE_CAPACITY": str(KERNEL_CACHE_ENTRIES),
        }
        if settings.num_threads is not None:
            properties["INFERENCE_NUM_THREADS"] = settings.num_threads
        self._pipeline = openvino_genai.ContinuousBatchingPipeline(
            str(directory), self._scheduler_config(settings), "CPU", properties
        )

    def add(self, input_ids: Sequence[int], sampling: SamplingParams, seed: int) -> OpenVinoSequence:
        """Take a prompt under an id of our own: a duplicate would break the next step for everybody."""
        prompt = self._tensor(np.asarray([input_ids], dtype=np.int64))
        handle = self._pipeline.add_request(next(self._next_id), prompt, self._generation_config(sampling, seed))
        return OpenVinoSequence(handle, self._genai, has_log_probs=sampling.log_probs)

    def step(self) -> None:
        """Run one step; holds the interpreter's lock throughout."""
        self._pipeline.step()

    def _scheduler_config(self, settings: ServiceSettings) -> Any:  # noqa: ANN401  the library has no types
        config = self._genai.SchedulerConfig()
        config.num_kv_blocks = settings.num_kv_blocks
        config.cache_size = 0
        config.max_num_seqs = settings.max_batch_size
        config.max_num_batched_tokens = settings.max_num_tokens
        config.dynamic_split_fuse = settings.chunked_context
        config.enable_prefix_caching = settings.kv_cache_reuse
        return config

    def _generation_config(self, sampling: SamplingParams, seed: int) -> Any:  # noqa: ANN401
        config = self._genai.GenerationConfig()
        config.max_new_tokens = sampling.max_tokens
        config.min_new_tokens = sampling.min_tokens
        # The pipeline wants an end-of-sequence id even where a request has none.
        config.set_eos_token_id(min(sampling.stop_token_ids, default=self._eos_token_id))
        if sampling.stop_token_ids:
            config.stop_token_ids = set(sampling.stop_token_ids)
        else:
            config.ignore_eos = True
        config.repetition_penalty = sampling.repetition_penalty
        config.presence_penalty = sampling.presence_penalty
        config.frequency_penalty = sampling.frequency_penalty
        config.logprobs = int(sampling.log_probs)
        config.do_sample = sampling.temperature is not None
        if sampling.temperature is not None:
            config.temperature = sampling.temperature
            config.rng_seed = seed
            if sampling.top_k is not None:
                config.top_k = sampling.top_k
            if sampling.top_p is not None:
                config.top_p = sampling.top_p
        config.validate()
        return config


class OpenVinoSequence:
    """A generation handle as a `PipelineSequence`."""

    __slots__ = ("_finish_reasons", "_handle", "_has_log_probs", "_ignored")

    def __init__(self, handle: Any, genai: Any, *, has_log_probs: bool) -> None:  # noqa: ANN401
        """Wrap `handle`; `genai` is the library, for its enumerations."""
        self._handle = handle
        self._has_log_probs = has_log_probs
        reasons = genai.GenerationFinishReason
        self._finish_reasons: dict[object, FinishReason] = {reasons.STOP: "stop", reasons.LENGTH: "length"}
        self._ignored = genai.GenerationStatus.IGNORED

    def read(self) -> tuple[list[int], list[float], FinishReason | None]:
        """Return everything that the last step made; see `PipelineSequence.read`."""
        ids: list[int] = []
        log_probs: list[float] = []
        finish_reason: FinishReason | None = None
        handle = self._handle
        while handle.can_read():
            for output in handle.read().values():
                ids += output.generated_ids
                if self._has_log_probs:
                    log_probs += output.generated_log_probs
                finish_reason = self._finish_reasons.get(output.finish_reason, finish_reason)
        if not ids and finish_reason is None and handle.get_status() == self._ignored:
            return [], [], "error"
        return ids, log_probs, finish_reason

    def cancel(self) -> None:
        """Give the place up; see `PipelineSequence.cancel`."""
        self._handle.cancel()

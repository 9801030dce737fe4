"""TensorRT-LLM's `llmapi` as of 1.3, as strict as the real one, with tokens that count upwards.

Put `tests/fakes/tensorrt_llm_package` on `sys.path` first. What it does as the real one: it refuses unknown arguments;
its asynchronous queue exists only for requests made within a running event loop; `token_ids` holds all tokens so far,
and at the end a stop token is taken off again; without a tokenizer every request must name its end token.
"""

from __future__ import annotations

import asyncio
import enum
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

INHERITED = [name for name in os.environ if name.startswith(("OMPI_", "PMIX_"))]
if INHERITED:
    message = f"imported inside another MPI job: {INHERITED}"
    raise RuntimeError(message)

STEP_S = 0.002
VOCAB_SIZE = 300


class CapacitySchedulerPolicy(enum.Enum):
    MAX_UTILIZATION = "MAX_UTILIZATION"
    GUARANTEED_NO_EVICT = "GUARANTEED_NO_EVICT"
    STATIC_BATCH = "STATIC_BATCH"


@dataclass(kw_only=True)
class SchedulerConfig:
    capacity_scheduler_policy: CapacitySchedulerPolicy = CapacitySchedulerPolicy.GUARANTEED_NO_EVICT


@dataclass(kw_only=True)
class KvCacheConfig:
    enable_block_reuse: bool = True
    max_tokens: int | None = None
    free_gpu_memory_fraction: float | None = 0.9
    max_gpu_total_bytes: int = 0
    dtype: str = "auto"
    tokens_per_block: int = 32

    def __post_init__(self) -> None:
        assert self.dtype in ("auto", "fp8", "nvfp4"), self.dtype


@dataclass(kw_only=True)
class SamplingParams:
    end_id: int | None = None
    max_tokens: int = 32
    stop_token_ids: list[int] | None = None
    n: int = 1
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None
    temperature: float | None = None
    min_tokens: int | None = None
    detokenize: bool = True

    def __post_init__(self) -> None:
        assert self.temperature is None or self.temperature > 0
        assert self.top_p is None or 0 < self.top_p <= 1
        assert self.seed is None or 0 <= self.seed < 2**63


@dataclass
class CompletionOutput:
    index: int
    token_ids: list[int]
    finish_reason: str | None = None


class RequestOutput:
    """A request on its way; iterate it for what is new."""

    def __init__(self, llm: LLM, prompt: list[int], params: SamplingParams, streaming: bool) -> None:
        self._loop = asyncio.get_running_loop()  # raises without one, where the real one has no queue to wait on
        self._llm, self._params, self._streaming = llm, params, streaming
        self._last = prompt[-1]
        self.outputs = [CompletionOutput(0, [])]
        self.aborted = False

    def abort(self) -> None:
        assert asyncio.get_running_loop() is self._loop, "abort from another thread"
        self.aborted = True

    def __aiter__(self) -> AsyncIterator[RequestOutput]:
        return self._responses()

    async def _responses(self) -> AsyncIterator[RequestOutput]:
        output = self.outputs[0]
        while output.finish_reason is None:
            await self._llm.step()
            if self.aborted:
                output.finish_reason = "cancelled"
                self._llm.events.append(f"aborted after {len(output.token_ids)}")
                print(self._llm.events[-1], flush=True)
            else:
                self._advance(output)
            if self._streaming or output.finish_reason is not None:
                yield self

    def _advance(self, output: CompletionOutput) -> None:
        params = self._params
        stride = 1 if params.top_k == 1 else 1 + (params.seed or 0) % 7
        self._last = (self._last + stride) % VOCAB_SIZE
        ends = {params.end_id, *(params.stop_token_ids or [])}
        if self._last in ends and len(output.token_ids) >= (params.min_tokens or 0):
            output.finish_reason = "stop"
            return
        output.token_ids.append(self._last)
        if len(output.token_ids) == params.max_tokens:
            output.finish_reason = "length"


class LLM:
    """A loaded model."""

    loaded: list[LLM] = []  # noqa: RUF012  for tests

    def __init__(
        self,
        model: str,
        *,
        backend: str,
        dtype: str = "auto",
        skip_tokenizer_init: bool = False,
        tensor_parallel_size: int = 1,
        pipeline_parallel_size: int = 1,
        max_batch_size: int | None = None,
        max_num_tokens: int | None = None,
        max_seq_len: int | None = None,
        enable_chunked_prefill: bool = False,
        scheduler_config: SchedulerConfig | None = None,
        kv_cache_config: KvCacheConfig | None = None,
    ) -> None:
        if backend != "pytorch":
            raise ValueError(f"unsupported backend {backend!r}")
        assert isinstance(kv_cache_config, KvCacheConfig)
        assert isinstance(scheduler_config, SchedulerConfig)
        assert (Path(model) / "config.json").is_file(), f"no model at {model}"
        self.arguments = {name: value for name, value in locals().items() if name != "self"}
        self.has_tokenizer = not skip_tokenizer_init
        self.events: list[str] = []
        self.requests: list[tuple[list[int], SamplingParams, bool]] = []
        self.fault: Exception | None = None
        self.is_shut_down = False
        LLM.loaded.append(self)
        self._log_memory(kv_cache_config)

    def _log_memory(self, kv_cache: KvCacheConfig) -> None:
        """Write what the PyTorch backend writes while it loads."""
        profiled = "in memory usage profiling"
        print(f"[TRT-LLM] [I] Memory used after loading model weights (inside torch) {profiled}: 0.25 GiB")
        print(f"[TRT-LLM] [I] Memory dynamically allocated during inference (inside torch) {profiled}: 0.05 GiB")
        print(f"[TensorRT-LLM][INFO] Number of tokens per block: {kv_cache.tokens_per_block}.")
        pool = f"Allocated 0.01 GiB for max tokens in paged KV cache ({kv_cache.max_tokens})."
        print(f"[TensorRT-LLM][INFO] [MemUsageChange] {pool}", flush=True)

    def generate_async(self, inputs: Any, sampling_params: SamplingParams, *, streaming: bool = False) -> RequestOutput:
        """Take a request."""
        [prompt] = inputs.values()
        assert list(inputs) == ["prompt_token_ids"], inputs
        if sampling_params.end_id is None and not self.has_tokenizer:
            raise ValueError("tokenizer is required to reset end_id if it is None")
        assert self.has_tokenizer or not sampling_params.detokenize
        self.requests.append((prompt, sampling_params, streaming))
        return RequestOutput(self, prompt, sampling_params, streaming)

    async def step(self) -> None:
        """Wait for the next step."""
        await asyncio.sleep(STEP_S)
        if self.fault is not None:
            raise self.fault

    def shutdown(self) -> None:
        """Unload the model."""
        self.is_shut_down = True

"""TensorRT-LLM's LLM API (the PyTorch backend) as a `GenerationEngine`: token ids in, token ids out, in this process.

Beside the checkpoint lies `model.yaml` with the arguments of `LLM(...)`; it is written as JSON, which is YAML too.
An asyncio loop in a thread of its own takes the answers; the library does the batching.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import threading
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from . import admission
from .engine_api import Chunk, InvalidRequestError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from concurrent.futures import Future
    from pathlib import Path

    from .engine_api import FinishReason, GenerateRequest, SamplingParams, Sink
    from .settings import ServiceSettings

MODEL_FILE = "model.yaml"

_ELSEWHERE = "the text model does not pass it to the LLM API"
UNSUPPORTED_INPUTS: Mapping[str, str] = MappingProxyType(
    {
        "bad_words": "the LLM API forbids single tokens only, not words",
        "embedding_bias_words": _ELSEWHERE,
        "embedding_bias_ids": _ELSEWHERE,
        "embedding_bias_weights": _ELSEWHERE,
        "return_log_probs": "which of them the LLM API gives differs between its releases",
        "return_context_logits": _ELSEWHERE,
        "return_generation_logits": _ELSEWHERE,
        "return_perf_metrics": _ELSEWHERE,
        "guided_decoding_guide_type": _ELSEWHERE,
        "guided_decoding_guide": _ELSEWHERE,
        "lora_task_id": "the model is loaded without LoRA",
        "lora_weights": "the model is loaded without LoRA",
        "lora_config": "the model is loaded without LoRA",
        "prompt_embedding_table": "the LLM API has no prompt tuning",
        "prompt_table_extra_id": "the LLM API has no prompt tuning",
        "prompt_vocab_size": "the LLM API has no prompt tuning",
        "decoder_text_input": "the model has no encoder",
    }
)
"""Inputs of the contract that this engine refuses where they would change something, and why."""

_INHERITED = ("OMPI_", "PMIX_")
_SEED_STRIDE = 0x9E3779B97F4A7C15  # 2**64 / golden ratio: seeds of one request's sequences do not meet those of seed+1
_FINISH_REASONS: Mapping[str, FinishReason] = MappingProxyType({"stop": "stop", "length": "length"})


def create(
    settings: ServiceSettings, directory: Path, *, on_step: Callable[[], None], log: Callable[[str], None]
) -> LlmApiEngine:
    """Load the model in `directory`; `on_step` is called every so often while requests run."""
    return LlmApiEngine(settings, load(directory), on_step=on_step, log=log)


def load(directory: Path) -> Any:  # noqa: ANN401  the library has no types here
    """Return the library's `LLM` for `directory`.

    Variables that an mpirun around tritonserver left would make the library join that job instead of starting its own
    workers. They must be gone before it is imported.
    """
    for name in [name for name in os.environ if name.startswith(_INHERITED)]:
        del os.environ[name]
    from tensorrt_llm import llmapi

    arguments = json.loads((directory / MODEL_FILE).read_text(encoding="utf-8"))
    kv_cache, scheduler = arguments.pop("kv_cache_config"), arguments.pop("scheduler_config")
    policy = getattr(llmapi.CapacitySchedulerPolicy, scheduler["capacity_scheduler_policy"])
    return llmapi.LLM(
        **{**arguments, "model": str(directory / arguments["model"])},
        kv_cache_config=llmapi.KvCacheConfig(**kv_cache),
        scheduler_config=llmapi.SchedulerConfig(capacity_scheduler_policy=policy),
    )


class _Generation:
    """A request that was taken: one run of the library for each sequence that differs."""

    def __init__(self, request: GenerateRequest, sink: Sink, loop: asyncio.AbstractEventLoop) -> None:
        self.request = request
        self.sink = sink
        self.is_cancelled = False
        self.results: list[Any] = []  # of the loop's thread only
        self._loop = loop

    def cancel(self) -> None:
        """Give the places up; from any thread."""
        self.is_cancelled = True
        self._loop.call_soon_threadsafe(self.abort)

    def abort(self) -> None:
        """Tell the library; in the loop's thread."""
        for result in self.results:
            result.abort()


class LlmApiEngine:
    """A `GenerationEngine` over an `LLM`."""

    def __init__(
        self,
        settings: ServiceSettings,
        llm: Any,  # noqa: ANN401  the library has no types here
        *,
        on_step: Callable[[], None],
        log: Callable[[str], None] = print,
    ) -> None:
        """Start the loop; arguments as for `create`."""
        self._settings = settings
        self._llm = llm
        self._on_step = on_step
        self._log = log
        self._lock = threading.Lock()
        self._live: dict[_Generation, Future[None]] = {}  # guarded by _lock, as is the next
        self._is_closing = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def submit(self, request: GenerateRequest, sink: Sink) -> _Generation:
        """Take a request; see `GenerationEngine.submit`."""
        admission.check(request, self._settings)
        _check_penalties(request.sampling)
        generation = _Generation(request, sink, self._loop)
        with self._lock:
            if self._is_closing:
                raise UnavailableError("the model is being unloaded")
            live = sum(each.request.sampling.num_sequences for each in self._live)
            waiting = live - self._settings.max_batch_size
            if waiting >= self._settings.max_queue_size:
                message = f"max_queue_size: {waiting} requests are waiting already; try again later"
                raise UnavailableError(message)
            self._live[generation] = asyncio.run_coroutine_threadsafe(self._serve(generation), self._loop)
        return generation

    def close(self) -> None:
        """Fail what is live and unload the model; see `GenerationEngine.close`."""
        with self._lock:
            if self._is_closing:
                return
            self._is_closing = True
            live = dict(self._live)
        for generation in live:
            self._loop.call_soon_threadsafe(_fail, generation, "the model is being unloaded")
            generation.cancel()
        for served in live.values():
            served.exception(timeout=5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._llm.shutdown()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        watch = self._loop.create_task(self._watch())
        self._loop.run_forever()
        watch.cancel()
        self._loop.run_until_complete(asyncio.gather(watch, return_exceptions=True))
        self._loop.close()

    async def _watch(self) -> None:
        """Let somebody look after the clients, in another thread: asking costs a round trip to the server each."""
        pause_s = max(self._settings.cancel_poll_ms / 2000, 0.005)
        while True:
            await asyncio.sleep(pause_s)
            await self._loop.run_in_executor(None, self._on_step)

    async def _serve(self, generation: _Generation) -> None:
        try:
            await asyncio.gather(*(self._answer(generation, *lane) for lane in _lanes(generation.request.sampling)))
        except Exception as error:
            self._log(f"engine: a request failed: {error}")
            _fail(generation, f"the engine failed: {error}")
            generation.abort()
        finally:
            with self._lock:
                self._live.pop(generation, None)

    async def _answer(self, generation: _Generation, seed: int | None, indices: tuple[int, ...]) -> None:
        """Deliver one run of the library to the sequences `indices`."""
        if generation.is_cancelled:
            return
        request = generation.request
        # Within the loop: the library makes its asynchronous queue only where one runs.
        result = self._llm.generate_async(
            {"prompt_token_ids": list(request.input_ids)},
            sampling_params=_sampling_params(request.sampling, seed),
            streaming=request.is_stream,
        )
        generation.results.append(result)
        num_seen = 0
        async for _ in result:
            [output] = result.outputs
            # All tokens so far; at the end the library takes a stop token off again.
            new, num_seen = tuple(output.token_ids[num_seen:]), max(num_seen, len(output.token_ids))
            if generation.is_cancelled:
                continue
            if output.finish_reason is not None and output.finish_reason not in _FINISH_REASONS:
                message = f"the library ended the request: {output.finish_reason}"
                raise RuntimeError(message)
            reason = None if output.finish_reason is None else _FINISH_REASONS[output.finish_reason]
            if not new and reason is None:
                continue
            chunks = [Chunk(sequence_index=index, token_ids=new, finish_reason=reason) for index in indices]
            going_on = [chunk.sequence_index for chunk in chunks if generation.sink(chunk)]
            indices = tuple(going_on)
            if reason is None and not going_on:
                result.abort()
                return


def _lanes(sampling: SamplingParams) -> list[tuple[int | None, tuple[int, ...]]]:
    """Return the runs that a request needs, each with its seed: all greedy sequences are the same one."""
    indices = range(sampling.num_sequences)
    if sampling.temperature is None:
        return [(None, tuple(indices))]
    base = secrets.randbits(63) if sampling.seed is None else sampling.seed
    return [((base + index * _SEED_STRIDE) % 2**63, (index,)) for index in indices]


def _sampling_params(sampling: SamplingParams, seed: int | None) -> Any:  # noqa: ANN401
    """Return the library's parameters; without a tokenizer it wants an end token, -1 for none."""
    from tensorrt_llm import llmapi

    ends = sorted(sampling.stop_token_ids)
    arguments: dict[str, object] = {
        "max_tokens": sampling.max_tokens,
        "end_id": ends[0] if ends else -1,
        "stop_token_ids": ends[1:] or None,
        "detokenize": False,
    }
    if sampling.min_tokens:
        arguments["min_tokens"] = sampling.min_tokens
    if sampling.temperature is None:
        arguments["top_k"] = 1
    else:
        arguments |= {"temperature": sampling.temperature, "seed": seed, "top_k": sampling.top_k}
        arguments["top_p"] = 1.0 if sampling.top_p is None and sampling.top_k is None else sampling.top_p
    return llmapi.SamplingParams(**arguments)


def _check_penalties(sampling: SamplingParams) -> None:
    """Refuse what the library would take and, before its release 1.3.0rc24, is not known to apply.

    Raises:
        InvalidRequestError: a penalty would do something.
    """
    nothing: Sequence[tuple[str, float, float]] = (
        ("repetition_penalty", sampling.repetition_penalty, 1.0),
        ("presence_penalty", sampling.presence_penalty, 0.0),
        ("frequency_penalty", sampling.frequency_penalty, 0.0),
    )
    for name, value, neutral in nothing:
        if value != neutral:
            message = f"{name}: TensorRT-LLM's Torch sampler is not known to apply it before 1.3.0rc24"
            raise InvalidRequestError(message)


def _fail(generation: _Generation, message: str) -> None:
    generation.sink(Chunk(sequence_index=0, token_ids=(), finish_reason="error", error=message))

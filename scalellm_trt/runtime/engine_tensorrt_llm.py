"""The engine in Triton's C++ `tensorrtllm` backend, reached as another model of the same server: a thread per request.

A request that nobody waits for any more is cancelled through its response iterator where the python backend can
(Triton from 25.04 on), and by a stop request with its id where it cannot, or where that shows no effect. Either way
the responses are taken to the end: an iterator that is dropped blocks until its request has ended.
"""

from __future__ import annotations

import secrets
import threading
import time
import uuid
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import triton_python_backend_utils as pb_utils

from . import admission, inner_request
from .engine_api import UnavailableError
from .inner_answer import InnerAnswer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from .engine_api import GenerateRequest, Sink
    from .inner_request import InnerRequest
    from .settings import ServiceSettings

UNSUPPORTED_INPUTS: Mapping[str, str] = MappingProxyType(
    {
        "return_context_logits": "the engine is built without logits",
        "return_generation_logits": "the engine is built without logits",
        "return_perf_metrics": "the text model does not pass them on; ask the engine's model itself",
        "guided_decoding_guide_type": "guided decoding needs a file made from the tokenizer, which builds do not make",
        "guided_decoding_guide": "guided decoding needs a file made from the tokenizer, which builds do not make",
        "lora_task_id": "the engine is built without LoRA",
        "lora_weights": "the engine is built without LoRA",
        "lora_config": "the engine is built without LoRA",
        "prompt_embedding_table": "the engine is built without prompt tuning",
        "prompt_table_extra_id": "the engine is built without prompt tuning",
        "prompt_vocab_size": "the engine is built without prompt tuning",
        "decoder_text_input": "the model has no encoder",
    }
)
"""Inputs of the contract that this engine refuses where they would change something, and why."""

STOP_AGAIN_S = 0.25  # a stop request that overtakes its victim does nothing, so it is repeated
CANCEL_GRACE_S = 0.1  # how long cancel() may take before the stop request follows; the backend looks each 5 ms
CLOSE_S = 5.0
_SEED_STRIDE = 0x9E3779B97F4A7C15  # 2**64 / golden ratio: seeds of one request's sequences do not meet those of seed+1
_NEVER = float("inf")


def create(
    settings: ServiceSettings, directory: Path, *, on_step: Callable[[], None], log: Callable[[str], None]
) -> TensorRtLlmEngine:
    """Return the engine of `settings.engine_model`; `directory` holds the tokenizer only.

    `on_step` is called from a thread of the engine's own while requests run, and takes no part in their steps.
    """
    del directory
    return TensorRtLlmEngine(settings, on_step=on_step, log=log)


class _Lane:
    """One inner request and the thread that waits for its responses."""

    def __init__(self, settings: ServiceSettings, inner: InnerRequest, answer: InnerAnswer) -> None:
        self._settings = settings
        self._inner = inner
        self._id = uuid.uuid4().hex  # an id that is used twice would let a stop request end the wrong one
        self._lock = threading.Lock()
        self._responses: Any = None
        self._is_cancelled = False
        self.answer = answer
        self.stop_at = _NEVER

    def run(self) -> None:
        """Ask, and deliver until the last response."""
        with self._lock:
            if self._is_cancelled:
                return
        responses = self._request(self._inner.inputs, self._inner.outputs).exec(decoupled=True)
        with self._lock:
            self._responses = responses
            was_cancelled = self._is_cancelled
        if was_cancelled:
            self._cancel_asked()
        for response in responses:
            self._take(response)
        if not self._is_cancelled:
            self.answer.finish()

    def cancel(self) -> None:
        """Let the engine give up what it does for this lane; from any thread."""
        with self._lock:
            is_first, self._is_cancelled = not self._is_cancelled, True
            is_asked = self._responses is not None
        if is_first and is_asked:
            self._cancel_asked()

    def stop(self) -> None:
        """Send the stop request, and wait for its answer."""
        for _ in self._request(inner_request.stop(self._settings.engine_contract), ()).exec(decoupled=True):
            pass

    def _take(self, response: Any) -> None:  # noqa: ANN401  a type of Triton's stub
        if self._is_cancelled:
            return
        if response.has_error():
            self.answer.fail(f"the engine refused the request: {response.error().message()}")
            return
        outputs = {tensor.name(): tensor.as_numpy() for tensor in response.output_tensors()}
        if outputs:
            self.answer.take(outputs)
        if self.answer.has_enough:
            self.cancel()

    def _cancel_asked(self) -> None:
        grace_s = 0.0
        if hasattr(self._responses, "cancel"):
            self._responses.cancel()
            grace_s = CANCEL_GRACE_S
        self.stop_at = time.monotonic() + grace_s

    def _request(self, inputs: Mapping[str, Any], outputs: Sequence[str]) -> Any:  # noqa: ANN401
        return pb_utils.InferenceRequest(
            model_name=self._settings.engine_model,
            request_id=self._id,
            requested_output_names=list(outputs),
            inputs=[pb_utils.Tensor(name, array) for name, array in inputs.items()],
            # Responses in GPU memory can deadlock the thread that delivers them before Triton 26.07.
            preferred_memory=pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU, 0),
        )


class _Generation:
    """A request that was taken."""

    def __init__(self, lanes: Sequence[_Lane], num_sequences: int) -> None:
        self.lanes = lanes
        self.num_sequences = num_sequences
        self.num_open = len(lanes)

    def cancel(self) -> None:
        for lane in self.lanes:
            lane.cancel()


class TensorRtLlmEngine:
    """A `GenerationEngine` whose engine is another model of the server."""

    def __init__(
        self, settings: ServiceSettings, *, on_step: Callable[[], None], log: Callable[[str], None] = print
    ) -> None:
        """Start the thread that looks after the live requests; arguments as for `create`."""
        self._settings = settings
        self._on_step = on_step
        self._log = log
        self._condition = threading.Condition()
        self._live: list[_Generation] = []  # guarded by _condition, as are the next two
        self._threads: set[threading.Thread] = set()
        self._closes_at: float | None = None
        self._watcher = threading.Thread(target=self._watch, name="engine", daemon=True)
        self._watcher.start()

    def submit(self, request: GenerateRequest, sink: Sink) -> _Generation:
        """Take a request; see `GenerationEngine.submit`. `sink` is called from the request's own threads."""
        admission.check(request, self._settings)
        generation = _Generation(self._lanes(request, sink), request.sampling.num_sequences)
        with self._condition:
            if self._closes_at is not None:
                raise UnavailableError("the model is being unloaded")
            waiting = sum(live.num_sequences for live in self._live) - self._settings.max_batch_size
            if waiting >= self._settings.max_queue_size:
                message = f"max_queue_size: {waiting} requests are waiting already; try again later"
                raise UnavailableError(message)
            self._live.append(generation)
            self._condition.notify()
            for lane in generation.lanes:
                thread = threading.Thread(target=self._serve, args=(generation, lane), name="request", daemon=True)
                self._threads.add(thread)
                thread.start()
        return generation

    def close(self) -> None:
        """Fail what is live; see `GenerationEngine.close`."""
        deadline = time.monotonic() + CLOSE_S
        with self._condition:
            self._closes_at = deadline
            live, threads = list(self._live), list(self._threads)
            self._condition.notify()
        for generation in live:
            for lane in generation.lanes:
                lane.answer.fail("the model is being unloaded")
            generation.cancel()
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._watcher.join()

    def _lanes(self, request: GenerateRequest, sink: Sink) -> list[_Lane]:
        """Return the inner requests: one where the engine can make all sequences, else one for each.

        All greedy sequences are the same one. Engines of 0.13 make one sequence of a request.
        """
        sampling = request.sampling
        indices = range(sampling.num_sequences)
        if sampling.temperature is None:
            plan: list[tuple[int | None, list[tuple[int, ...]]]] = [(None, [tuple(indices)])]
        else:
            # An engine that gets no seed takes the same one each time.
            base = secrets.randbits(64) if sampling.seed is None else sampling.seed
            if self._settings.engine_contract == "1.x":
                plan = [(base, [(index,) for index in indices])]
            else:
                plan = [((base + index * _SEED_STRIDE) % 2**64, [(index,)]) for index in indices]
        lanes = []
        for seed, slots in plan:
            inner = inner_request.build(request, self._settings, seed=seed, num_sequences=len(slots))
            lanes.append(_Lane(self._settings, inner, InnerAnswer(inner, sampling, slots, sink)))
        return lanes

    def _serve(self, generation: _Generation, lane: _Lane) -> None:
        try:
            lane.run()
        except Exception as error:
            self._log(f"engine: {self._settings.engine_model} could not be asked: {error}")
            lane.answer.fail(f"{self._settings.engine_model} could not be asked: {error}")
        lane.stop_at = _NEVER
        with self._condition:
            generation.num_open -= 1
            if not generation.num_open:
                self._live.remove(generation)
            self._threads.discard(threading.current_thread())

    def _watch(self) -> None:
        """While requests run: look after their clients, and repeat what a cancelled one did not hear."""
        pause_s = max(self._settings.cancel_poll_ms / 2000, 0.005)
        while True:
            with self._condition:
                while not self._live and self._closes_at is None:
                    self._condition.wait()
                if self._closes_at is not None and not (self._live and time.monotonic() < self._closes_at):
                    return
                lanes = [lane for generation in self._live for lane in generation.lanes]
            time.sleep(pause_s)
            self._on_step()
            now = time.monotonic()
            for lane in [lane for lane in lanes if lane.stop_at <= now]:
                lane.stop_at = now + STOP_AGAIN_S
                threading.Thread(target=self._stop, args=(lane,), name="stop", daemon=True).start()

    def _stop(self, lane: _Lane) -> None:
        try:
            lane.stop()
        except Exception as error:
            self._log(f"engine: {self._settings.engine_model} could not be told to stop: {error}")

"""A generation as the tensors of Triton's C++ `tensorrtllm` backend, and its responses back: no model between.

What the text model in front of an engine does for other clients is done here by the same modules: how tokens are asked
for (`runtime/inner_request`), when a sequence has ended and why (`runtime/inner_answer`), what can never be served
(`runtime/admission`), because the backend itself answers every refusal with INTERNAL and does not say why it ended.
"""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from scalellm_trt.gateway import request_log, tensors
from scalellm_trt.gateway.contract import Asked, TokenChunk
from scalellm_trt.gateway.errors import OPENAI_FIELDS, ApiError, from_model, invalid
from scalellm_trt.runtime import admission, inner_request
from scalellm_trt.runtime.engine_api import GenerateRequest, InvalidRequestError, SamplingParams
from scalellm_trt.runtime.inner_answer import InnerAnswer
from scalellm_trt.runtime.request import bad_word_ids

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scalellm_trt.gateway.tensors import Generation
    from scalellm_trt.gateway.upstream import Message
    from scalellm_trt.runtime.engine_api import Chunk
    from scalellm_trt.runtime.inner_request import InnerRequest
    from scalellm_trt.runtime.settings import ServiceSettings
    from scalellm_trt.runtime.tokenizer import PromptTokenizer

REQUIRED_INPUTS: Final = frozenset({"input_ids", "input_lengths", "request_output_len", "streaming"})
"""By them a model of a repository is known to have this contract."""

_SAID: Final = frozenset(
    {
        "input_ids", "max_tokens", "temperature", "top_p", "stream", "exclude_input_in_output", "seed", "top_k",
        "min_tokens", "repetition_penalty", "presence_penalty", "frequency_penalty", "stop_words",
        "num_return_sequences", "return_log_probs", "end_id", "bad_words", "embedding_bias_ids",
        "embedding_bias_weights",
    }
)  # fmt: skip
"""Inputs of the text model that can be said in this contract."""

_TYPES: Final = {"int32": "INT32", "float32": "FP32", "bool": "BOOL", "uint64": "UINT64"}
_DTYPES: Final = {"INT32": np.int32, "FP32": np.float32}
_TOO_LONG: Final = ("prompt length", "exceeds maximum input length", "max_seq_len")
_QUEUE_FULL: Final = "maximum queue size"


def can_ask(generation: Generation, settings: ServiceSettings) -> bool:
    """Return whether one request to the engine's model says all of `generation`.

    Engines of 0.13 make one sequence of a request; several random ones take several requests.
    """
    is_one = generation.num_sequences == 1 or settings.engine_contract == "1.x" or _is_greedy(generation)
    return is_one and tensors.inputs(generation).keys() <= _SAID


def ask(generation: Generation, settings: ServiceSettings, tokenizer: PromptTokenizer, *, reports_reuse: bool) -> Asked:
    """Return the request to the engine's model, which `can_ask` must allow.

    Raises:
        ApiError: it can never be served; the engine's own refusal would not say what is wrong.
    """
    assert settings.engine_model is not None
    wanted = replace(_request(generation, settings, tokenizer), reports_reuse=reports_reuse)
    try:
        admission.check(wanted, settings)
    except InvalidRequestError as error:
        name, _, reason = str(error).partition(": ")
        raise invalid(OPENAI_FIELDS.get(name, name), reason) from error
    sampling, indices = wanted.sampling, range(generation.num_sequences)
    # Greedy sequences are all the same one.
    slots = [tuple(indices)] if sampling.temperature is None else [(index,) for index in indices]
    inner = inner_request.build(wanted, settings, seed=sampling.seed, num_sequences=len(slots))
    return Asked(request=_encode(settings.engine_model, inner), answer=_EngineAnswer(inner, sampling, slots))


def _request(generation: Generation, settings: ServiceSettings, tokenizer: PromptTokenizer) -> GenerateRequest:
    is_greedy, top_k = _is_greedy(generation), generation.top_k or None
    sampling = SamplingParams(
        max_tokens=generation.max_tokens,
        min_tokens=generation.min_tokens or 0,
        temperature=None if is_greedy else generation.temperature,
        top_k=None if is_greedy or top_k is None or top_k >= settings.vocab_size else top_k,
        top_p=None if is_greedy or generation.top_p == 1 else generation.top_p,
        seed=None if is_greedy else _seed(generation),
        repetition_penalty=1.0 if generation.repetition_penalty is None else generation.repetition_penalty,
        presence_penalty=generation.presence_penalty or 0.0,
        frequency_penalty=generation.frequency_penalty or 0.0,
        num_sequences=generation.num_sequences,
        stop_token_ids=frozenset() if generation.ignore_eos else frozenset(settings.eos_token_ids),
        stop_word_ids=tokenizer.token_bytes.ids_of(generation.stop),
        bad_words=bad_word_ids(generation.bad_words, tokenizer),
        token_bias=generation.token_bias,
        log_probs=generation.has_log_probs,
    )
    # A stop text ends the answer where it is seen, which a single response at the end would be too late for.
    is_stream = generation.is_stream or bool(generation.stop)
    return GenerateRequest(input_ids=tuple(generation.input_ids), sampling=sampling, is_stream=is_stream)


def _is_greedy(generation: Generation) -> bool:
    return generation.temperature == 0 or generation.top_k == 1


def _seed(generation: Generation) -> int:
    # An engine that gets no seed takes the same one each time.
    return secrets.randbits(64) if generation.seed is None else generation.seed


def _encode(model: str, inner: InnerRequest) -> Message:
    from tritonclient.grpc import service_pb2

    # Of our own: an id that is used twice at a time would be confused by the backend.
    request = service_pb2.ModelInferRequest(model_name=model, id=request_log.new_id())
    request.parameters["triton_enable_empty_final_response"].bool_param = True
    for name, array in inner.inputs.items():
        request.inputs.add(name=name, datatype=_TYPES[array.dtype.name], shape=array.shape)
        request.raw_input_contents.append(array.tobytes())
    for name in inner.outputs:
        request.outputs.add(name=name)
    return request


class _EngineAnswer:
    """An `Answer` of the engine's model."""

    knows_stop_texts = False

    def __init__(self, inner: InnerRequest, sampling: SamplingParams, slots: Sequence[tuple[int, ...]]) -> None:
        self._found: list[TokenChunk] = []
        self._answer = InnerAnswer(inner, sampling, slots, self._keep)

    def take(self, response: Message) -> Sequence[TokenChunk]:
        if not response.outputs:
            return ()
        self._answer.take(_arrays(response))
        return self._taken()

    def pass_by(self, token_ids: Sequence[int]) -> bool:
        return self._answer.pass_by(token_ids)

    def finish(self) -> Sequence[TokenChunk]:
        self._answer.finish()
        return self._taken()

    def refusal(self, message: str) -> ApiError:
        """Tell a refusal from a failure: the backend sends both in the same way."""
        lower = message.lower()
        if _QUEUE_FULL in lower:
            return ApiError(503, f"the engine's queue is full: {message}", code="overloaded")
        if any(words in lower for words in _TOO_LONG):
            return ApiError(400, f"the engine refuses the prompt: {message}", code="context_length_exceeded")
        return from_model(message)

    def _keep(self, chunk: Chunk) -> bool:
        self._found.append(
            TokenChunk(
                index=chunk.sequence_index,
                token_ids=chunk.token_ids,
                log_probs=chunk.log_probs,
                finish_reason=chunk.finish_reason,
                num_reused_blocks=chunk.num_reused_blocks,
            )
        )
        return True

    def _taken(self) -> list[TokenChunk]:
        found, self._found = self._found, []
        return found


def _arrays(response: Message) -> dict[str, Any]:
    """Return the outputs by name; their shapes are of no interest, since a response is of one sequence."""
    return {
        output.name: np.frombuffer(content, dtype=_DTYPES[output.datatype])
        for output, content in zip(response.outputs, response.raw_output_contents, strict=True)
    }

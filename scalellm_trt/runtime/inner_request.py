"""A request in, the tensors that ask Triton's C++ `tensorrtllm` backend for it out, in the names of its generation."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from .engine_api import GenerateRequest, SamplingParams
    from .settings import EngineContract, ServiceSettings

    Tensors = dict[str, NDArray[Any]]

_MIN_TOKENS = {"0.13": "min_length", "1.x": "min_tokens"}
_SEED = {"0.13": "random_seed", "1.x": "seed"}


@dataclass(frozen=True, slots=True, kw_only=True)
class InnerRequest:
    """One request to the engine's model.

    Attributes:
        inputs: name → tensor, with a batch dimension of 1.
        outputs: exactly the outputs that are wanted.
        is_stream: tokens come as they are made; else all in one response.
        engine_stop_ids: ids at which the engine ends by itself.
    """

    inputs: Tensors
    outputs: tuple[str, ...]
    is_stream: bool
    engine_stop_ids: frozenset[int]


def build(
    request: GenerateRequest, settings: ServiceSettings, *, seed: int | None, num_sequences: int = 1
) -> InnerRequest:
    """Return what makes the engine answer `request`.

    Args:
        request: what is wanted.
        settings: the service; `engine_contract` names the tensors.
        seed: of the random generator; None is greedy.
        num_sequences: answers that the engine is to make of it by itself.
    """
    sampling = request.sampling
    contract = settings.engine_contract
    end_id = _end_id(sampling, settings)
    # The engine holds its end token back for min_tokens, but not a stop word: then only we may watch for those.
    stop_ids = () if sampling.min_tokens else sorted(sampling.stop_token_ids - {end_id} | sampling.stop_word_ids)
    inputs = {
        "input_ids": np.array([request.input_ids], dtype=np.int32),  # (1, prompt_len)
        "input_lengths": _scalar(len(request.input_ids), np.int32),
        "request_output_len": _scalar(sampling.max_tokens, np.int32),
        "pad_id": _scalar(settings.eos_token_ids[0] if end_id is None else end_id, np.int32),
        **_choice(sampling),
    }
    if end_id is not None:  # without it the engine ends at max_tokens only
        inputs["end_id"] = _scalar(end_id, np.int32)
    if sampling.min_tokens:
        inputs[_MIN_TOKENS[contract]] = _scalar(sampling.min_tokens, np.int32)
    if seed is not None:
        inputs[_SEED[contract]] = _scalar(seed, np.uint64)
    if stop_ids:
        inputs["stop_words_list"] = word_list([(token_id,) for token_id in stop_ids])
    if sampling.bad_words:
        inputs["bad_words_list"] = word_list(sampling.bad_words)
    if sampling.token_bias:
        inputs["embedding_bias"] = _bias(sampling.token_bias, settings.vocab_size)
    outputs = ["output_ids", "sequence_length"]
    if sampling.log_probs:
        inputs["return_log_probs"] = _scalar(True, np.bool_)
        outputs.append("output_log_probs")
    if request.reports_reuse and contract == "1.x":  # 0.13 does not know it
        inputs["return_perf_metrics"] = _scalar(True, np.bool_)
        outputs.append("kv_cache_reused_blocks")
    if num_sequences > 1:
        inputs["num_return_sequences"] = _scalar(num_sequences, np.int32)
        outputs.append("sequence_index")
    watches_itself = bool(sampling.min_tokens) and len(sampling.stop_token_ids) > 1
    is_stream = request.is_stream or watches_itself
    inputs["streaming"] = _scalar(is_stream, np.bool_)
    ends = frozenset(stop_ids) | (frozenset() if end_id is None else {end_id})
    return InnerRequest(inputs=inputs, outputs=tuple(outputs), is_stream=is_stream, engine_stop_ids=ends)


def stop(contract: EngineContract) -> Tensors:
    """Return the inputs of the request that ends another one, which has the same id.

    The lengths are there because Triton checks required inputs before the backend sees them; 0.13 wants ids too.
    """
    inputs = {
        "stop": _scalar(True, np.bool_),
        "input_lengths": _scalar(0, np.int32),
        "request_output_len": _scalar(0, np.int32),
    }
    return inputs if contract == "1.x" else {"input_ids": _scalar(0, np.int32), **inputs}


def word_list(words: Sequence[Sequence[int]]) -> NDArray[np.int32]:
    """Return words as the backend takes them: ids one after the other, and where each word ends, padded with -1.

    Returns:
        (1, 2, total length), int32; every word must have at least one id.
    """
    ids = [token_id for word in words for token_id in word]
    ends = list(accumulate(len(word) for word in words))
    return np.array([[ids, ends + [-1] * (len(ids) - len(ends))]], dtype=np.int32)


def _choice(sampling: SamplingParams) -> Tensors:
    """Return how tokens are chosen: an engine that is told nothing takes the most probable one.

    early_stopping and runtime_top_p_min are never sent: the backend reads the first with the wrong size and looks for
    the second under another name.
    """
    penalties = {
        "repetition_penalty": (sampling.repetition_penalty, 1.0),
        "presence_penalty": (sampling.presence_penalty, 0.0),
        "frequency_penalty": (sampling.frequency_penalty, 0.0),
    }
    tensors = {name: _scalar(value, np.float32) for name, (value, nothing) in penalties.items() if value != nothing}
    if sampling.temperature is None:
        return tensors | {"runtime_top_k": _scalar(1, np.int32)}
    tensors["temperature"] = _scalar(sampling.temperature, np.float32)
    if sampling.top_k is not None:
        tensors["runtime_top_k"] = _scalar(sampling.top_k, np.int32)
    if sampling.top_p is not None or sampling.top_k is None:
        tensors["runtime_top_p"] = _scalar(1.0 if sampling.top_p is None else sampling.top_p, np.float32)
    return tensors


def _end_id(sampling: SamplingParams, settings: ServiceSettings) -> int | None:
    """Return the one id that the engine takes: the model's first, where it counts."""
    ids = sampling.stop_token_ids
    first = [token_id for token_id in settings.eos_token_ids if token_id in ids]
    return first[0] if first else min(ids, default=None)


def _bias(token_bias: Sequence[tuple[int, float]], vocab_size: int) -> NDArray[np.float32]:
    """Return (1, vocab_size): what is added to each token's logit."""
    bias = np.zeros((1, vocab_size), dtype=np.float32)
    for token_id, weight in token_bias:
        bias[0, token_id] += weight
    return bias


def _scalar(value: float, dtype: type[np.generic]) -> NDArray[Any]:
    return np.array([[value]], dtype=dtype)

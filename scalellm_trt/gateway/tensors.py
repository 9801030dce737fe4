"""A generation as the tensors of a service's own model, and its responses back."""

from __future__ import annotations

import struct
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from scalellm_trt.gateway.contract import Asked, TokenChunk
from scalellm_trt.gateway.errors import from_model
from scalellm_trt.runtime import signature

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_TYPES: Final = {
    tensor.name: tensor.data_type.removeprefix("TYPE_").replace("STRING", "BYTES") for tensor in signature.INPUTS
}
REUSE_INPUT: Final = "return_perf_metrics"
"""With it a model says how many KV pages of the prompt it had already."""

_INT_SIZE: Final = 4
_ONE_INT: Final = struct.Struct("<i")
_FORMATS: Final = {"BOOL": "?", "INT32": "i", "UINT64": "Q", "FP32": "f"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Guide:
    """What guided decoding holds an answer to, in TensorRT-LLM's words; `text` is the schema of `json_schema`."""

    kind: Literal["json", "json_schema"]
    text: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """What a model is asked for. None leaves a choice to the model.

    Attributes:
        model: the served model's name.
        request_id: what the server's log calls the request.
        max_tokens: new tokens of each sequence, at most.
        num_sequences: answers to the same prompt.
        stop: texts that end an answer.
        bad_words: texts that must not be made.
        token_bias: (id, value added to that token's logit).
        ignore_eos: go on after the model's end token.
        is_stream: tokens as they are made; otherwise all in one response.
    """

    model: str
    request_id: str
    input_ids: Sequence[int]
    max_tokens: int
    temperature: float
    top_p: float
    is_stream: bool
    num_sequences: int = 1
    seed: int | None = None
    stop: tuple[str, ...] = ()
    top_k: int | None = None
    min_tokens: int | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    bad_words: tuple[str, ...] = ()
    token_bias: tuple[tuple[int, float], ...] = ()
    guide: Guide | None = None
    has_log_probs: bool = False
    ignore_eos: bool = False


def inputs(generation: Generation) -> dict[str, list[int] | list[float] | list[bool] | list[bytes]]:
    """Return the values of a request's tensors by name."""
    tensors: dict[str, list[int] | list[float] | list[bool] | list[bytes]] = {
        "input_ids": list(generation.input_ids),
        "max_tokens": [generation.max_tokens],
        "temperature": [generation.temperature],
        "top_p": [generation.top_p],
        "stream": [generation.is_stream],
        "exclude_input_in_output": [True],
    }
    for name in ("seed", "top_k", "min_tokens", "repetition_penalty", "presence_penalty", "frequency_penalty"):
        value = getattr(generation, name)
        if value is not None:
            tensors[name] = [value]
    if generation.stop:
        tensors["stop_words"] = [word.encode() for word in generation.stop]
    tensors |= _guidance(generation)
    if generation.num_sequences > 1:
        tensors["num_return_sequences"] = [generation.num_sequences]
    if generation.has_log_probs:
        tensors["return_log_probs"] = [True]
    if generation.ignore_eos:
        tensors["end_id"] = [-1]
    return tensors


def _guidance(generation: Generation) -> dict[str, list[int] | list[float] | list[bytes]]:
    """Return the tensors that forbid, favour or prescribe tokens."""
    tensors: dict[str, list[int] | list[float] | list[bytes]] = {}
    if generation.bad_words:
        tensors["bad_words"] = [word.encode() for word in generation.bad_words]
    if generation.token_bias:
        tensors["embedding_bias_ids"] = [token_id for token_id, _ in generation.token_bias]
        tensors["embedding_bias_weights"] = [weight for _, weight in generation.token_bias]
    if generation.guide is not None:
        tensors["guided_decoding_guide_type"] = [generation.guide.kind.encode()]
        if generation.guide.text is not None:
            tensors["guided_decoding_guide"] = [generation.guide.text.encode()]
    return tensors


def ask(generation: Generation, *, reports_reuse: bool) -> Asked:
    """Return the request to the service's own model, which may be able to say what its KV cache had already."""
    return Asked(request=encode(generation, reports_reuse=reports_reuse), answer=_ModelAnswer())


class _ModelAnswer:
    """An `Answer` of the service's own model, which says when a sequence has ended and why."""

    knows_stop_texts = True
    take = staticmethod(lambda response: decode(response))
    refusal = staticmethod(from_model)

    def pass_by(self, token_ids: Sequence[int]) -> bool:
        return True

    def finish(self) -> tuple[()]:
        return ()


def encode(generation: Generation, *, reports_reuse: bool = False) -> Any:  # noqa: ANN401  protobuf has no types
    """Return the `ModelInferRequest`; each tensor has a batch dimension of 1."""
    from tritonclient.grpc import service_pb2

    request = service_pb2.ModelInferRequest(model_name=generation.model, id=generation.request_id)
    request.parameters["triton_enable_empty_final_response"].bool_param = True
    wanted = inputs(generation)
    if reports_reuse:
        wanted[REUSE_INPUT] = [True]
    for name, values in wanted.items():
        request.inputs.add(name=name, datatype=_TYPES[name], shape=[1, len(values)])
        request.raw_input_contents.append(_raw(_TYPES[name], values))
    return request


def decode(response: Any) -> list[TokenChunk]:  # noqa: ANN401
    """Return the tokens in a `ModelInferResponse`: a chunk for each of its sequences, none for an empty response."""
    raw = {}
    for output, content in zip(response.outputs, response.raw_output_contents, strict=True):
        raw[output.name] = content
    ids, lengths = raw.get("output_ids"), raw.get("sequence_length", b"")
    if ids is None:
        return []
    if len(lengths) != _INT_SIZE:
        return _decode_rows(raw, array("i", lengths))
    # One sequence, as in every stream: nothing that would be paid for each token without need.
    (length,) = _ONE_INT.unpack(lengths)
    token_ids = _ONE_INT.unpack(ids) if length == 1 == len(ids) // _INT_SIZE else tuple(array("i", ids)[:length])
    index, probs, reason = raw.get("sequence_index"), raw.get("output_log_probs"), raw.get("finish_reason")
    reused = raw.get("kv_cache_reused_blocks")
    return [
        TokenChunk(
            index=0 if index is None else _ONE_INT.unpack(index)[0],
            token_ids=token_ids,
            log_probs=() if probs is None else tuple(array("f", probs)[:length]),
            finish_reason=None if reason is None else _texts(reason)[0] or None,
            num_reused_blocks=None if reused is None else _ONE_INT.unpack(reused)[0],
        )
    ]


def _decode_rows(raw: Mapping[str, bytes], lengths: array[int]) -> list[TokenChunk]:
    """Return the chunks of several sequences, of which each has a row as wide as the longest."""
    rows = _rows(array("i", raw["output_ids"]), len(lengths))
    log_probs = _rows(array("f", raw.get("output_log_probs", b"")), len(lengths))
    indexes = array("i", raw["sequence_index"]) if "sequence_index" in raw else range(len(lengths))
    reasons = _texts(raw.get("finish_reason", b"")) or [None] * len(lengths)
    reused = raw.get("kv_cache_reused_blocks")
    return [
        TokenChunk(
            index=index,
            token_ids=tuple(ids[:length]),
            log_probs=tuple(probs[:length]),
            finish_reason=reason,
            num_reused_blocks=None if reused is None else _ONE_INT.unpack(reused)[0],
        )
        for index, length, ids, probs, reason in zip(indexes, lengths, rows, log_probs, reasons, strict=True)
    ]


def _raw(data_type: str, values: Sequence[int] | Sequence[float] | Sequence[bytes]) -> bytes:
    if data_type == "BYTES":
        return b"".join(struct.pack("<I", len(value)) + value for value in values if isinstance(value, bytes))
    return struct.pack(f"<{len(values)}{_FORMATS[data_type]}", *values)


def _rows(values: array[Any], count: int) -> list[array[Any]]:
    width = len(values) // count if count else 0
    return [values[index * width : (index + 1) * width] for index in range(count)]


def _texts(raw: bytes) -> list[str | None]:
    texts: list[str | None] = []
    position = 0
    while position < len(raw):
        (length,) = struct.unpack_from("<I", raw, position)
        texts.append(raw[position + 4 : position + 4 + length].decode())
        position += 4 + length
    return texts

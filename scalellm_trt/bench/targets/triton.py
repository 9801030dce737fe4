"""Triton's gRPC: a question as the tensors of a service's model, as text or as tokens, and its responses back."""

from __future__ import annotations

import struct
from array import array
from typing import TYPE_CHECKING, Any, Final

from scalellm_trt.bench.targets.raw import Answer, Piece
from scalellm_trt.runtime import signature

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from scalellm_trt.bench.question import Question
    from scalellm_trt.bench.records import ErrorClass
    from scalellm_trt.bench.targets.grpc_client import GrpcClient
    from scalellm_trt.bench.targets.raw import Raw, Reader
    from scalellm_trt.bench.targets.target import Way

    Values = Sequence[int] | Sequence[float] | Sequence[bool] | Sequence[bytes]

_TYPES: Final = {
    tensor.name: tensor.data_type.removeprefix("TYPE_").replace("STRING", "BYTES") for tensor in signature.INPUTS
}
_FORMATS: Final = {"BOOL": "?", "INT32": "i", "UINT64": "Q", "FP32": "f"}
_BUSY: Final = ("max_queue_size: ", "the model is being unloaded")
_REQUEST_WORDS: Final = ("[request id:", "unexpected inference input")


class TritonAsker:
    """Asks over gRPC, a stream for each request."""

    def __init__(self, way: Way, client: GrpcClient) -> None:
        """Take where and how."""
        self._way, self._client = way, client

    async def prepare(self, num_streams: int) -> None:
        """See `Asker`."""
        await self._client.prepare(num_streams)

    async def ask(self, question: Question, request_id: str, timeout_s: float) -> Raw:
        """See `Asker`."""
        return await self._client.exchange(request(self._way, question, request_id), timeout_s)

    def give_up(self) -> None:
        """See `Asker`."""
        self._client.give_up()

    async def close(self) -> None:
        """See `Asker`."""
        await self._client.close()


def tensors(way: Way, question: Question) -> dict[str, Values]:
    """Return the values of a request's tensors by name."""
    values: dict[str, Values] = {"max_tokens": [question.max_tokens], "stream": [True]}
    if way.kind == "triton-text":
        values["text_input"] = [question.text.encode()]
        values |= {"return_num_input_tokens": [True], "return_num_output_tokens": [True]}
        values["exclude_input_in_output"] = [True]
    else:
        values["input_ids"] = question.ids
    if way.temperature > 0:
        values["temperature"] = [way.temperature]
    if way.forces_length:
        values["min_tokens"] = [question.max_tokens]
    return values


def request(way: Way, question: Question, request_id: str) -> bytes:
    """Return the `ModelInferRequest`; each tensor has a batch dimension of 1."""
    from tritonclient.grpc import service_pb2

    message = service_pb2.ModelInferRequest(model_name=way.model, id=request_id)
    message.parameters["triton_enable_empty_final_response"].bool_param = True
    for name, values in tensors(way, question).items():
        message.inputs.add(name=name, datatype=_TYPES[name], shape=[1, len(values)])
        message.raw_input_contents.append(_raw(_TYPES[name], values))
    content: bytes = message.SerializeToString()
    return content


def reader(decode: Callable[[Sequence[int]], str]) -> Reader:
    """Return who reads answers of both models; `decode` makes a text of tokens."""

    def read(raw: Raw) -> Answer:
        from tritonclient.grpc import service_pb2

        answer = Answer()
        if raw.error is not None:
            answer.fail(raw.error, raw.error_text or "")
        ids: list[int] = []
        waiting = 0
        for at_s, content in raw.pieces:
            try:
                message = service_pb2.ModelStreamInferResponse.FromString(content)
            except Exception as error:  # protobuf's DecodeError, whose class depends on its implementation
                answer.fail("garbage", f"a message that cannot be read: {error}")
                break
            if message.error_message:
                answer.fail(*_refusal(message.error_message))
                break
            waiting = _take(message.infer_response, at_s, answer, ids, waiting)
        _add_late(answer, waiting)
        if ids:
            answer.whole_text = decode(ids)
        if answer.finish_reason is None and not answer.pieces and answer.error is None and not raw.was_cancelled:
            answer.fail("garbage", "the stream ended without an answer")
        return answer

    return read


def _take(response: Any, at_s: float, answer: Answer, ids: list[int], waiting: int) -> int:  # noqa: ANN401
    """Add a response; return how many tokens have come whose text has not."""
    raw = {
        output.name: content for output, content in zip(response.outputs, response.raw_output_contents, strict=False)
    }
    if reason := raw.get("finish_reason"):
        answer.finish_reason = reason[4:].decode("utf-8", "replace") or answer.finish_reason
    if count := raw.get("num_input_tokens"):
        answer.server_isl = struct.unpack("<i", count[:4])[0]
    if (found := raw.get("output_ids")) is not None:
        new = array("i", found)[: struct.unpack("<i", raw["sequence_length"][:4])[0]]
        ids += new
        if new:
            answer.pieces.append(Piece(at_s=at_s, text="", num_tokens=len(new)))
        return 0
    waiting += struct.unpack("<i", raw["num_output_tokens"][:4])[0] if raw.get("num_output_tokens") else 0
    text = raw.get("text_output", b"")[4:].decode("utf-8", "replace")
    if text:
        answer.pieces.append(Piece(at_s=at_s, text=text, num_tokens=waiting if "num_output_tokens" in raw else None))
        return 0
    return waiting


def _add_late(answer: Answer, waiting: int) -> None:
    """Count tokens without a text of their own, such as the end token, with the piece before; sum up."""
    if waiting and answer.pieces and answer.pieces[-1].num_tokens is not None:
        last = answer.pieces[-1]
        answer.pieces[-1] = Piece(at_s=last.at_s, text=last.text, num_tokens=(last.num_tokens or 0) + waiting)
    counts = [piece.num_tokens for piece in answer.pieces if piece.num_tokens is not None]
    answer.server_osl = sum(counts) if counts else None


def _refusal(text: str) -> tuple[ErrorClass, str]:
    """Return the class of a text that a server or a model sent instead of an answer, and the text."""
    if text.startswith(_BUSY):
        return "rate_limited", text
    if "unknown model" in text:
        return "wrong_model", text
    if text.partition(": ")[0] in _TYPES or text.lower().startswith(_REQUEST_WORDS):
        return "bad_request", text
    return "server_error", text


def _raw(data_type: str, values: Values) -> bytes:
    if data_type == "BYTES":
        return b"".join(struct.pack("<I", len(value)) + value for value in values if isinstance(value, bytes))
    return struct.pack(f"<{len(values)}{_FORMATS[data_type]}", *values)

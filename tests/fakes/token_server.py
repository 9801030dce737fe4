"""Stands for a tritonserver with one token model: the real gRPC, strict about every tensor, tokens from the prompt.

The answer is the prompt again, token by token, then the end token; with `is_endless` again and again. With `counts_up`
it is the alphabet from the last letter on, as far as max_tokens: what comes depends on the token before alone.
"""

from __future__ import annotations

import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from scalellm_trt.runtime import signature

if TYPE_CHECKING:
    from collections.abc import Iterator

TYPES = {tensor.name: tensor.data_type.removeprefix("TYPE_").replace("STRING", "BYTES") for tensor in signature.INPUTS}
FORMATS = {"BOOL": "?", "INT32": "i", "UINT64": "Q", "FP32": "f"}
LOG_PROB = -0.5
FIRST_LETTER, NUM_LETTERS = 64, 26  # a to z of the small tokenizer


class RefusedError(Exception):
    """What the server or the model answers with an error text."""


class TokenServer(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]  # tritonclient has no types
    """The server; `url` is its address."""

    def __init__(self, model: str, end_id: int, port: int = 0) -> None:
        self.model, self.end_id = model, end_id
        self.reset()
        self._server = grpc.server(ThreadPoolExecutor(64))
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(self, self._server)
        self.url = f"127.0.0.1:{self._server.add_insecure_port(f'127.0.0.1:{port}')}"
        self._server.start()

    def reset(self) -> None:
        """Behave well, and forget what was."""
        self.requests: list[dict[str, list[Any]]] = []
        self.metadata: list[dict[str, str]] = []
        self.events: list[str] = []
        self.step_s = 0.0
        self.tokens_per_response = 1
        self.is_endless = False
        self.counts_up = False
        self.num_reused_blocks: int | None = None
        self.failure: str | None = None
        self.status: grpc.StatusCode | None = None
        self.breaks_after: int | None = None
        self.is_up = True
        self.num_sent = 0
        self.has_left = threading.Event()

    def close(self) -> None:
        self._server.stop(None).wait()

    def ServerReady(self, request: Any, context: Any) -> Any:
        return service_pb2.ServerReadyResponse(ready=self.is_up)

    def RepositoryIndex(self, request: Any, context: Any) -> Any:
        answer = service_pb2.RepositoryIndexResponse()
        answer.models.add(name=self.model, version="1", state="READY")
        return answer

    def ModelStreamInfer(self, request_iterator: Iterator[Any], context: Any) -> Iterator[Any]:
        request = next(request_iterator, None)
        if request is None:  # cancelled before it came
            return
        self.metadata.append(dict(context.invocation_metadata()))
        if self.status is not None:
            context.abort(self.status, "max_tokens: as the test wants it")
        try:
            values = self._read(request)
            self.requests.append(values)
            if self.failure is not None:
                raise RefusedError(self.failure)
        except RefusedError as error:
            yield service_pb2.ModelStreamInferResponse(error_message=str(error))
            return
        is_over = threading.Event()

        def end() -> None:
            self.events.append("done" if is_over.is_set() else "cancelled")
            self.has_left.set()

        if not context.add_callback(end):
            end()  # cancelled since it was read: gRPC calls nobody then
            return
        for number, message in enumerate(self._messages(values, context)):
            if number == self.breaks_after:
                yield service_pb2.ModelStreamInferResponse(error_message="the engine died")
                return
            if message.infer_response.parameters["triton_final_response"].bool_param:
                is_over.set()
            yield message
        # The client has half-closed: with the last answer the stream is over.
        assert list(request_iterator) == []

    def _read(self, request: Any) -> dict[str, list[Any]]:
        if request.model_name != self.model:
            raise RefusedError(f"Request for unknown model: '{request.model_name}' is not found")
        assert set(request.parameters) == {"triton_enable_empty_final_response"}
        values = {}
        for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True):
            if tensor.name not in TYPES:
                raise RefusedError(f"[request id: {request.id}] unexpected inference input '{tensor.name}'")
            assert tensor.datatype == TYPES[tensor.name], tensor.name
            values[tensor.name] = _texts(raw) if tensor.datatype == "BYTES" else _numbers(tensor.datatype, raw)
            assert list(tensor.shape) == [1, len(values[tensor.name])], tensor.name
        assert {"input_ids", "max_tokens", "stream"} <= values.keys()
        assert values["input_ids"]
        if values.get("presence_penalty"):
            raise RefusedError("presence_penalty: the OpenVINO engine computes it wrongly")
        return values

    def _messages(self, values: dict[str, list[Any]], context: Any) -> Iterator[Any]:
        num_sequences = values.get("num_return_sequences", [1])[0]
        size = self.tokens_per_response if values["stream"][0] else 10**9
        reused = self.num_reused_blocks if values.get("return_perf_metrics") == [True] else None
        sent, is_last, reason = 0, False, ""
        while not is_last:
            ids: list[int] = []
            while len(ids) < size and not is_last:
                if self.step_s:
                    time.sleep(self.step_s)
                    if not context.is_active():
                        return
                ids.append(self._token(values, sent + len(ids)))
                is_end = ids[-1] == self.end_id and values.get("end_id") != [-1]
                is_last = is_end or sent + len(ids) == values["max_tokens"][0]
                reason = "stop" if is_end else "length"
            sent += len(ids)
            self.num_sent += len(ids)
            for index in range(num_sequences):
                is_final = is_last and index == num_sequences - 1
                message = _message(index, ids, reason if is_last else "", values, is_final=is_final)
                if reused is not None and sent == len(ids):
                    _add(message.infer_response, "kv_cache_reused_blocks", "INT32", [1, 1], struct.pack("<i", reused))
                yield message

    def _token(self, values: dict[str, list[Any]], position: int) -> int:
        ids: list[int] = values["input_ids"]
        if self.counts_up:
            return FIRST_LETTER + (ids[-1] - FIRST_LETTER + position + 1) % NUM_LETTERS
        if self.is_endless:
            return ids[position % len(ids)]
        return ids[position] if position < len(ids) else self.end_id


def _message(index: int, ids: list[int], reason: str, values: dict[str, list[Any]], *, is_final: bool) -> Any:
    message = service_pb2.ModelStreamInferResponse()
    response = message.infer_response
    response.parameters["triton_final_response"].bool_param = is_final
    tensors: list[tuple[str, str, list[int], bytes]] = [
        ("output_ids", "INT32", [1, 1, len(ids)], struct.pack(f"<{len(ids)}i", *ids)),
        ("sequence_length", "INT32", [1, 1], struct.pack("<i", len(ids))),
    ]
    if "return_log_probs" in values:
        log_probs = struct.pack(f"<{len(ids)}f", *[LOG_PROB] * len(ids))
        tensors.append(("output_log_probs", "FP32", [1, 1, len(ids)], log_probs))
    if "num_return_sequences" in values:
        tensors.append(("sequence_index", "INT32", [1, 1], struct.pack("<i", index)))
    if reason:
        tensors.append(("finish_reason", "BYTES", [1, 1], struct.pack("<I", len(reason)) + reason.encode()))
    for name, data_type, shape, raw in tensors:
        _add(response, name, data_type, shape, raw)
    return message


def _add(response: Any, name: str, data_type: str, shape: list[int], raw: bytes) -> None:
    response.outputs.add(name=name, datatype=data_type, shape=shape)
    response.raw_output_contents.append(raw)


def _numbers(data_type: str, raw: bytes) -> list[Any]:
    kind = FORMATS[data_type]
    return list(struct.unpack(f"<{len(raw) // struct.calcsize(kind)}{kind}", raw))


def _texts(raw: bytes) -> list[bytes]:
    texts = []
    while raw:
        (length,) = struct.unpack_from("<I", raw)
        texts.append(raw[4 : 4 + length])
        raw = raw[4 + length :]
    return texts

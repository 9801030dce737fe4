from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tritonclient.grpc import InferResult, service_pb2

from scalellm_trt.gateway import tensors
from scalellm_trt.gateway.contract import TokenChunk
from scalellm_trt.gateway.tensors import Generation


def _response(**arrays: np.ndarray[Any, Any]) -> service_pb2.ModelInferResponse:
    response = service_pb2.ModelInferResponse()
    for name, array in arrays.items():
        kind = {"i": "INT32", "f": "FP32", "O": "BYTES"}[array.dtype.kind]
        response.outputs.add(name=name, datatype=kind, shape=array.shape)
        if kind == "BYTES":
            words = array.ravel().tolist()
            raw = b"".join(len(word).to_bytes(4, "little") + word for word in words)
        else:
            raw = array.tobytes()
        response.raw_output_contents.append(raw)
    return response


def test_rows_are_cut_to_their_length() -> None:
    response = _response(
        output_ids=np.array([[[7, 8, 9], [5, 0, 0]]], dtype=np.int32),
        sequence_length=np.array([[3, 1]], dtype=np.int32),
        output_log_probs=np.array([[[-1, -2, -3], [-4, 0, 0]]], dtype=np.float32),
        sequence_index=np.array([[1, 0]], dtype=np.int32),
        finish_reason=np.array([[b"length", b"stop"]], dtype=np.object_),
    )
    assert tensors.decode(response) == [
        TokenChunk(index=1, token_ids=(7, 8, 9), log_probs=(-1.0, -2.0, -3.0), finish_reason="length"),
        TokenChunk(index=0, token_ids=(5,), log_probs=(-4.0,), finish_reason="stop"),
    ]


@pytest.mark.parametrize(("length", "expected"), [(1, (7,)), (2, (7, 8)), (3, (7, 8, 9))])
def test_one_sequence_is_cut_too(length: int, expected: tuple[int, ...]) -> None:
    response = _response(
        output_ids=np.array([[[7, 8, 9]]], dtype=np.int32),
        sequence_length=np.array([[length]], dtype=np.int32),
        output_log_probs=np.array([[[-1, -2, -3]]], dtype=np.float32),
        sequence_index=np.array([[3]], dtype=np.int32),
    )
    (chunk,) = tensors.decode(response)
    assert (chunk.index, chunk.token_ids, len(chunk.log_probs)) == (3, expected, length)


def test_tritons_own_client_reads_a_request_as_it_was_meant() -> None:
    generation = Generation(
        model="m", request_id="r", input_ids=[1, 2], max_tokens=3, temperature=0.5, top_p=1.0, is_stream=True,
        stop=("é", "x"), seed=2**64 - 1,
    )  # fmt: skip
    request = tensors.encode(generation)
    # Requests and responses write tensors alike: tritonclient reads them back.
    response = service_pb2.ModelInferResponse(raw_output_contents=request.raw_input_contents)
    for tensor in request.inputs:
        response.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
    result = InferResult(response)
    found = {tensor.name: result.as_numpy(tensor.name).tolist() for tensor in request.inputs}
    assert found == {
        "input_ids": [[1, 2]],
        "max_tokens": [[3]],
        "temperature": [[0.5]],
        "top_p": [[1.0]],
        "stream": [[True]],
        "exclude_input_in_output": [[True]],
        "seed": [[2**64 - 1]],
        "stop_words": [["é".encode(), b"x"]],
    }


@pytest.mark.parametrize("lengths", [[0], [0, 0]])
def test_a_response_may_hold_no_token(lengths: list[int]) -> None:
    response = _response(
        output_ids=np.zeros((1, len(lengths), 0), dtype=np.int32), sequence_length=np.array([lengths], dtype=np.int32)
    )
    assert [chunk.token_ids for chunk in tensors.decode(response)] == [()] * len(lengths)
    assert tensors.decode(service_pb2.ModelInferResponse()) == []

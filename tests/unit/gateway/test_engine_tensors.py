"""What is asked of an engine with the C++ contract, and how its answers read."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from scalellm_trt.gateway import engine_tensors
from scalellm_trt.gateway.errors import ApiError
from scalellm_trt.gateway.tensors import Generation
from scalellm_trt.runtime.detokenizer import TokenBytes
from scalellm_trt.runtime.settings import ServiceSettings
from scalellm_trt.runtime.tokenizer import PromptTokenizer

if TYPE_CHECKING:
    from collections.abc import Sequence

SETTINGS = ServiceSettings(
    engine="tensorrt_llm",
    engine_directory="engine",
    engine_model="m_engine",
    engine_contract="1.x",
    vocab_size=100,
    eos_token_ids=(2, 7),
    max_batch_size=4,
    max_input_len=50,
    max_seq_len=64,
    max_num_tokens=64,
    kv_cache_tokens=96,
)
BASE = Generation(
    model="m", request_id="mine", input_ids=[5, 6], max_tokens=9, temperature=0.0, top_p=1.0, is_stream=True
)


class _Numbers(PromptTokenizer):
    """Token 7 is the text "7."."""

    def __init__(self) -> None:
        self.token_bytes = TokenBytes([b"%d." % index for index in range(100)])

    def encode_word(self, text: str) -> tuple[int, ...]:
        return tuple(int(word) for word in text.strip().split("."))


def _ask(*, reports_reuse: bool = False, **changes: Any) -> tuple[dict[str, list[Any]], Any]:
    generation = dataclasses.replace(BASE, **changes)
    asked = engine_tensors.ask(generation, SETTINGS, _Numbers(), reports_reuse=reports_reuse)
    types = {"INT32": np.int32, "FP32": np.float32, "BOOL": np.bool_, "UINT64": np.uint64}
    tensors = {}
    for tensor, raw in zip(asked.request.inputs, asked.request.raw_input_contents, strict=True):
        tensors[tensor.name] = np.frombuffer(raw, types[tensor.datatype]).reshape(tensor.shape).tolist()
    return tensors, asked


def _response(ids: Sequence[int], index: int | None = None) -> Any:
    response = service_pb2.ModelInferResponse()
    arrays = {"output_ids": np.array([[ids]], np.int32), "sequence_length": np.array([[len(ids)]], np.int32)}
    if index is not None:
        arrays["sequence_index"] = np.array([[index]], np.int32)
    for name, array in arrays.items():
        response.outputs.add(name=name, datatype="INT32", shape=array.shape)
        response.raw_output_contents.append(array.tobytes())
    return response


def test_a_request_says_everything_in_the_engines_words() -> None:
    tensors, asked = _ask()
    assert tensors == {
        "input_ids": [[5, 6]], "input_lengths": [[2]], "request_output_len": [[9]], "pad_id": [[2]], "end_id": [[2]],
        "runtime_top_k": [[1]], "stop_words_list": [[[7], [1]]], "streaming": [[True]],
    }  # fmt: skip
    assert [output.name for output in asked.request.outputs] == ["output_ids", "sequence_length"]
    assert asked.request.model_name == "m_engine"
    # The client's id may be in use already.
    assert asked.request.id != "mine"
    tensors, _ = _ask(
        temperature=0.5, top_p=0.9, top_k=200, seed=3, num_sequences=2, stop=("8.",), repetition_penalty=1.5,
        presence_penalty=0.25, frequency_penalty=0.5, has_log_probs=True, is_stream=False, ignore_eos=True,
    )  # fmt: skip
    chosen = {"temperature": [[0.5]], "seed": [[3]], "num_return_sequences": [[2]], "stop_words_list": [[[8], [1]]]}
    assert chosen.items() <= tensors.items()
    assert tensors["runtime_top_p"][0][0] == pytest.approx(0.9)
    assert tensors["streaming"] == [[True]], "a stop text must be seen as it comes"
    assert not {"runtime_top_k", "end_id"} & tensors.keys()
    tensors, _ = _ask(bad_words=("4.5", "6"), token_bias=((3, 0.5), (5, -1.0), (3, 0.25)))
    assert tensors["bad_words_list"] == [[[4, 5, 6], [2, 3, -1]]]
    bias = tensors["embedding_bias"][0]
    assert (len(bias), bias[3], bias[5], bias.count(0.0)) == (100, 0.75, -1.0, 98)


def test_an_engine_that_knows_says_what_it_had() -> None:
    tensors, asked = _ask(reports_reuse=True)
    assert tensors["return_perf_metrics"] == [[True]]
    assert "kv_cache_reused_blocks" in [output.name for output in asked.request.outputs]
    response = _response([8])
    response.outputs.add(name="kv_cache_reused_blocks", datatype="INT32", shape=[1, 1])
    response.raw_output_contents.append(np.array([[3]], np.int32).tobytes())
    assert [chunk.num_reused_blocks for chunk in asked.answer.take(response)] == [3]


def test_without_a_seed_each_request_has_its_own() -> None:
    assert _ask(temperature=1.0)[0]["seed"] != _ask(temperature=1.0)[0]["seed"]


def test_ends_and_their_reasons_are_found() -> None:
    answer = _ask(max_tokens=3)[1].answer
    assert [chunk.token_ids for chunk in answer.take(_response([8]))] == [(8,)]
    (last,) = answer.take(_response([9, 10]))
    assert (last.token_ids, last.finish_reason) == ((9, 10), "length")
    assert answer.finish() == []
    answer = _ask()[1].answer
    (last,) = answer.take(_response([8, 7, 9]))
    assert (last.token_ids, last.finish_reason) == ((8, 7), "stop")
    answer = _ask()[1].answer
    answer.take(_response([8]))
    assert list(answer.take(service_pb2.ModelInferResponse())) == []
    assert [chunk.finish_reason for chunk in answer.finish()] == ["stop"]


def test_tokens_that_pass_by_are_counted_unless_they_may_end_the_answer() -> None:
    answer = _ask(max_tokens=4)[1].answer
    answer.take(_response([8]))
    assert not answer.pass_by([7])  # an end token, which the engine delivers
    assert not answer.pass_by([8, 9, 10])
    assert answer.pass_by([8, 9])
    assert not answer.pass_by([10])
    assert [(chunk.token_ids, chunk.finish_reason) for chunk in answer.take(_response([10]))] == [((10,), "length")]
    assert not answer.pass_by([11])


def test_sequences_are_told_apart_and_greedy_ones_are_one() -> None:
    answer = _ask(temperature=1.0, num_sequences=2)[1].answer
    assert [chunk.index for chunk in answer.take(_response([8], 1))] == [1]
    tensors, asked = _ask(num_sequences=3)
    assert "num_return_sequences" not in tensors
    assert [chunk.index for chunk in asked.answer.take(_response([8]))] == [0, 1, 2]


def test_some_requests_need_the_text_model() -> None:
    old = dataclasses.replace(SETTINGS, engine_contract="0.13")
    several = dataclasses.replace(BASE, num_sequences=2)
    assert engine_tensors.can_ask(several, old)
    assert not engine_tensors.can_ask(dataclasses.replace(several, temperature=1.0), old)
    assert engine_tensors.can_ask(dataclasses.replace(several, temperature=1.0), SETTINGS)


@pytest.mark.parametrize(
    ("changes", "param"),
    [({"num_sequences": 5}, "n"), ({"min_tokens": 10}, "min_tokens"), ({"input_ids": [-1]}, "input_ids")],
)
def test_what_can_never_be_served_is_refused_by_name(changes: dict[str, Any], param: str) -> None:
    with pytest.raises(ApiError) as error:
        _ask(**changes)
    assert (error.value.status, error.value.param) == (400, param)


@pytest.mark.parametrize(
    ("message", "status"),
    [
        ("Maximum queue size reached, please try again later", 503),
        ("Prompt length (60) exceeds maximum input length (50)", 400),
        ("[request id: x] unexpected inference input 'y'", 400),
        ("CUDA error: an illegal memory access was encountered", 500),
    ],
)
def test_an_engines_refusal_is_told_from_its_failure(message: str, status: int) -> None:
    assert _ask()[1].answer.refusal(message).status == status

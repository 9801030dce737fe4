"""What the C++ backend is asked, in the names and shapes of each generation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from scalellm_trt.runtime import inner_request
from scalellm_trt.runtime.engine_api import GenerateRequest, SamplingParams
from tests.fakes.pipelines import settings

if TYPE_CHECKING:
    from scalellm_trt.runtime.inner_request import InnerRequest


def build(contract: str = "1.x", *, is_stream: bool = True, seed: int | None = None, **sampling: Any) -> InnerRequest:
    values = {"max_tokens": 5, "stop_token_ids": frozenset({2, 7}), **sampling}
    request = GenerateRequest(input_ids=(4, 5, 6), sampling=SamplingParams(**values), is_stream=is_stream)
    service = settings(
        engine="tensorrt_llm", engine_model="x_engine", engine_contract=contract, eos_token_ids=(7, 2), vocab_size=16
    )
    return inner_request.build(request, service, seed=seed)


def values(inner: InnerRequest) -> dict[str, Any]:
    return {name: tensor.tolist() for name, tensor in inner.inputs.items()}


def test_a_greedy_request_in_full() -> None:
    inner = build()
    assert values(inner) == {
        "input_ids": [[4, 5, 6]],
        "input_lengths": [[3]],
        "request_output_len": [[5]],
        "pad_id": [[7]],
        "end_id": [[7]],
        "runtime_top_k": [[1]],
        "stop_words_list": [[[2], [1]]],
        "streaming": [[True]],
    }
    assert inner.outputs == ("output_ids", "sequence_length")
    assert inner.engine_stop_ids == {2, 7}
    dtypes = {name: tensor.dtype for name, tensor in inner.inputs.items()}
    assert {dtype for name, dtype in dtypes.items() if name != "streaming"} == {np.dtype(np.int32)}
    assert dtypes["streaming"] == np.bool_


@pytest.mark.parametrize(
    ("contract", "names"), [("1.x", ("min_tokens", "seed")), ("0.13", ("min_length", "random_seed"))]
)
def test_renamed_inputs_go_by_their_generation(contract: str, names: tuple[str, str]) -> None:
    inner = build(contract, seed=2**63, temperature=0.5, min_tokens=2)
    assert [values(inner)[name] for name in names] == [[[2]], [[2**63]]]
    assert inner.inputs[names[1]].dtype == np.uint64
    others = {"min_tokens", "seed", "min_length", "random_seed"} - set(names)
    assert not others & inner.inputs.keys()


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        ({"temperature": 0.5}, {"temperature": [[0.5]], "runtime_top_p": [[1.0]]}),  # neither would be greedy
        ({"temperature": 1.0, "top_k": 40}, {"temperature": [[1.0]], "runtime_top_k": [[40]]}),
        ({"temperature": 1.0, "top_p": 0.5}, {"temperature": [[1.0]], "runtime_top_p": [[0.5]]}),
        (
            {"temperature": 2.0, "top_k": 3, "top_p": 0.5},
            {"temperature": [[2.0]], "runtime_top_k": [[3]], "runtime_top_p": [[0.5]]},
        ),
        ({"temperature": None}, {"runtime_top_k": [[1]]}),
    ],
)
def test_randomness_is_spelled_out(sampling: dict[str, Any], expected: dict[str, Any]) -> None:
    found = values(build(**sampling))
    chosen = {"temperature", "runtime_top_k", "runtime_top_p"}
    assert {name: value for name, value in found.items() if name in chosen} == expected


def test_what_the_backend_reads_wrongly_is_never_sent() -> None:
    inner = build(seed=1, temperature=1.0, top_p=0.5, top_k=3, repetition_penalty=1.5, log_probs=True)
    assert not {"early_stopping", "runtime_top_p_min", "runtime_top_k_min"} & inner.inputs.keys()


def test_penalties_are_sent_where_they_do_something() -> None:
    assert not {"repetition_penalty", "presence_penalty", "frequency_penalty"} & build().inputs.keys()
    found = values(build(repetition_penalty=1.5, presence_penalty=-0.5, frequency_penalty=0.25))
    assert (found["repetition_penalty"], found["presence_penalty"], found["frequency_penalty"]) == (
        *([[1.5]], [[-0.5]], [[0.25]]),
    )


def test_words_are_flat_ids_with_their_ends() -> None:
    assert inner_request.word_list([(5,), (6, 7, 8), (9,)]).tolist() == [[[5, 6, 7, 8, 9], [1, 4, 5, -1, -1]]]
    assert values(build(bad_words=((3,), (4, 5))))["bad_words_list"] == [[[3, 4, 5], [1, 3, -1]]]
    assert values(build(stop_word_ids=frozenset({11})))["stop_words_list"] == [[[2, 11], [1, 2]]]


def test_no_end_token_means_none_is_sent() -> None:
    inner = build(stop_token_ids=frozenset())
    assert "end_id" not in inner.inputs
    assert "stop_words_list" not in inner.inputs
    assert inner.engine_stop_ids == frozenset()


def test_min_tokens_keeps_other_end_tokens_to_ourselves() -> None:
    inner = build(min_tokens=2, is_stream=False, stop_word_ids=frozenset({11}))
    assert "stop_words_list" not in inner.inputs
    assert inner.is_stream  # else an answer that should have ended would be made to its end
    assert inner.engine_stop_ids == {7}
    assert not build(min_tokens=2, is_stream=False, stop_token_ids=frozenset({7})).is_stream


def test_a_bias_is_a_number_for_every_token() -> None:
    bias = build(token_bias=((3, 1.5), (3, 1.0), (5, -2.0))).inputs["embedding_bias"]
    assert bias.shape == (1, 16)
    assert bias.dtype == np.float32
    assert {index: value for index, value in enumerate(bias[0].tolist()) if value} == {3: 2.5, 5: -2.0}


def test_log_probs_are_asked_for_and_wanted() -> None:
    inner = build(log_probs=True)
    assert values(inner)["return_log_probs"] == [[True]]
    assert inner.outputs == ("output_ids", "sequence_length", "output_log_probs")


def test_a_stop_request_has_what_triton_checks_first() -> None:
    new, old = ({name: t.tolist() for name, t in inner_request.stop(c).items()} for c in ("1.x", "0.13"))
    assert new == {"stop": [[True]], "input_lengths": [[0]], "request_output_len": [[0]]}
    assert old == {"input_ids": [[0]], **new}

from __future__ import annotations

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from scalellm_trt.errors import RecipeError, ScaleLLMError, ServerNotReadyError
from scalellm_trt.triton.client import REPORT_INPUTS, TextParams, input_tensors
from scalellm_trt.triton.client_errors import translate


def test_a_request_holds_only_what_was_chosen() -> None:
    tensors = input_tensors("é", TextParams(max_tokens=5), frozenset())
    assert {name: values.tolist() for name, values in tensors.items()} == {
        "text_input": [["é".encode()]],
        "max_tokens": [[5]],
        "stream": [[True]],
    }


def test_every_tensor_has_the_contracts_type_and_a_batch_dimension() -> None:
    params = TextParams(max_tokens=5, temperature=0.5, top_k=3, top_p=0.9, seed=2**64 - 1, stop_words=("a", "ü", "c"))
    tensors = input_tensors("x", params, frozenset(REPORT_INPUTS))
    assert {name: (values.dtype.name, values.shape) for name, values in tensors.items()} == {
        "text_input": ("object", (1, 1)),
        "max_tokens": ("int32", (1, 1)),
        "stream": ("bool", (1, 1)),
        "temperature": ("float32", (1, 1)),
        "top_k": ("int32", (1, 1)),
        "top_p": ("float32", (1, 1)),
        "seed": ("uint64", (1, 1)),
        "stop_words": ("object", (1, 3)),
        "exclude_input_in_output": ("bool", (1, 1)),
        "return_num_input_tokens": ("bool", (1, 1)),
        "return_num_output_tokens": ("bool", (1, 1)),
    }
    assert tensors["seed"] == np.array([[2**64 - 1]], dtype=np.uint64)
    assert tensors["stop_words"].tolist() == [[b"a", "ü".encode(), b"c"]]


def test_a_temperature_of_zero_is_sent() -> None:
    assert "temperature" in input_tensors("x", TextParams(max_tokens=1, temperature=0.0), frozenset())


@pytest.mark.parametrize(
    ("status", "text", "kind", "message"),
    [
        ("INVALID_ARGUMENT", "max_tokens: 0 is not allowed", RecipeError, "max_tokens: 0 is not allowed"),
        (None, "max_tokens: 0 is not allowed", RecipeError, "max_tokens: 0 is not allowed"),
        (None, "unexpected inference input 'x'", RecipeError, "unexpected inference input 'x'"),
        (None, "max_queue_size: 9 requests are waiting", ServerNotReadyError, "h:1: max_queue_size: 9 requests"),
        (None, "[request id: 3] unexpected inference input 'x'", RecipeError, "unexpected inference input 'x'"),
        ("NOT_FOUND", "Request for unknown model: 'x' is not found", RecipeError, "Models there: chat, code."),
        (None, "Request for unknown model: 'x' is not found", RecipeError, "Models there: chat, code."),
        ("UNAVAILABLE", "failed to connect to all addresses", ServerNotReadyError, "no tritonserver answers at h:1"),
        ("UNAVAILABLE", "the queue is full", ServerNotReadyError, "h:1: UNAVAILABLE: the queue is full"),
        ("DEADLINE_EXCEEDED", "Deadline Exceeded", ServerNotReadyError, "did not answer in time"),
        ("INTERNAL", "Stub process is not healthy", ServerNotReadyError, "h:1: INTERNAL: Stub process"),
    ],
)
def test_each_error_becomes_ours(status: str | None, text: str, kind: type[ScaleLLMError], message: str) -> None:
    error = InferenceServerException(text, status=None if status is None else f"StatusCode.{status}")
    translated = translate(error, "h:1", models=["chat", "code"])
    assert type(translated) is kind
    assert message in str(translated)


def test_an_error_of_another_kind_keeps_its_text() -> None:
    assert str(translate(RuntimeError("odd"), "h:1")) == "h:1: odd"

"""The model as Triton drives it, with a fake backend and a fake pipeline: from tensors to tensors."""

from __future__ import annotations

import json
import re
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import triton_python_backend_utils as pb

from scalellm_trt.runtime import engine_openvino, signature
from scalellm_trt.runtime.hosted_model import TritonPythonModel
from tests.fakes import small_tokenizer
from tests.fakes.pipelines import FakePipeline, settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DTYPES: dict[str, type[np.generic]] = {
    "TYPE_BOOL": np.bool_,
    "TYPE_INT32": np.int32,
    "TYPE_UINT64": np.uint64,
    "TYPE_FP16": np.float16,
    "TYPE_FP32": np.float32,
    "TYPE_STRING": np.object_,
}
INPUTS = {tensor.name: tensor for tensor in signature.INPUTS}
OUTPUTS = {tensor.name: tensor for tensor in signature.OUTPUTS}


class Host:
    """A loaded model."""

    def __init__(self, directory: Path, **changes: object) -> None:
        self.settings = settings(vocab_size=300, eos_token_ids=(299,), **changes)
        version = directory / "1"
        self.tokenizer = small_tokenizer.write(version / "engine")
        (version / "service.json").write_text(json.dumps(self.settings.to_json()))
        self.model = TritonPythonModel()
        self.model.initialize({"model_repository": str(directory), "model_version": "1"})

    def ask(self, **values: object) -> Any:
        """Send one request and return its response sender."""
        tensors = {
            name: np.array([value if isinstance(value, list) else [value]], dtype=DTYPES[INPUTS[name].data_type])
            for name, value in values.items()
        }
        request = pb.InferenceRequest(tensors)
        assert self.model.execute([request]) is None  # type: ignore[func-returns-value]
        return request.sender

    def answer(self, **values: object) -> list[dict[str, list[Any]]]:
        """Send one request, wait for its end and return the outputs of every response."""
        sender = self.ask(**values)
        assert sender.final.wait(5)
        for response in sender.responses:
            assert response.error() is None, response.error().message()
            for tensor in response.output_tensors():
                declared = OUTPUTS[tensor.name()]
                assert tensor.as_numpy().dtype == DTYPES[declared.data_type]
                assert tensor.as_numpy().ndim == 1 + len(declared.dims)
        return [response.values() for response in sender.responses]

    def error(self, **values: object) -> Any:
        """Send one request that fails and return its only error."""
        sender = self.ask(**values)
        assert sender.final.wait(5)
        [response] = sender.responses
        assert not response.output_tensors()
        return response.error()


@pytest.fixture
def pipelines(monkeypatch: pytest.MonkeyPatch) -> list[FakePipeline]:
    made: list[FakePipeline] = []

    def make(limits: Any, _directory: Path) -> FakePipeline:
        made.append(FakePipeline(limits))
        made[-1].may_step.set()
        return made[-1]

    monkeypatch.setattr(engine_openvino, "OpenVinoPipeline", make)
    return made


@pytest.fixture
def host(tmp_path: Path, pipelines: list[FakePipeline]) -> Iterator[Host]:
    host = Host(tmp_path)
    yield host
    pipelines[-1].may_step.set()
    host.model.finalize()
    assert not [thread for thread in threading.enumerate() if thread.name == "engine"]


def test_text_in_text_out_in_one_response(host: Host) -> None:
    [response] = host.answer(text_input=b"ab", max_tokens=3, exclude_input_in_output=True)
    last = host.tokenizer.encode("ab").ids[-1]
    assert response == {
        "text_output": [host.tokenizer.decode([last + 1, last + 2, last + 3])],
        "finish_reason": ["length"],
    }


def test_the_prompt_is_repeated_by_default(host: Host) -> None:
    [response] = host.answer(text_input=b"ab", max_tokens=1)
    assert response["text_output"][0].startswith("ab")


def test_a_stream_adds_up_to_the_unstreamed_text(host: Host) -> None:
    asked = {"text_input": b"ab", "max_tokens": 8, "exclude_input_in_output": True}
    streamed = host.answer(stream=True, **asked)
    [whole] = host.answer(**asked)
    assert len(streamed) == 8
    assert "".join(response["text_output"][0] for response in streamed) == whole["text_output"][0]
    assert [response.get("finish_reason") for response in streamed] == [None] * 7 + [["length"]]


def test_ids_in_ids_out(host: Host) -> None:
    [response] = host.answer(input_ids=[5, 6], max_tokens=2, exclude_input_in_output=True)
    assert response == {"output_ids": [[7, 8]], "sequence_length": [2], "finish_reason": ["length"]}
    [response] = host.answer(input_ids=[5, 6], max_tokens=2)
    assert response["output_ids"] == [[5, 6, 7, 8]]


def test_counts_and_log_probs_come_when_asked(host: Host) -> None:
    responses = host.answer(
        input_ids=[5, 6],
        max_tokens=2,
        stream=True,
        return_num_input_tokens=True,
        return_num_output_tokens=True,
        return_log_probs=True,
    )
    assert [response["num_input_tokens"] for response in responses] == [[2], [2]]
    assert [response["num_output_tokens"] for response in responses] == [[1], [1]]
    assert [response["output_log_probs"] for response in responses] == [[[-1.0]], [[-1.0]]]
    assert [response["cum_log_probs"] for response in responses] == [[-1.0], [-2.0]]


def test_a_stream_begins_with_the_pages_that_the_engine_had(host: Host) -> None:
    asked = {"input_ids": [3, 4, 5, 6, 7, 8, 9, 5, 6], "max_tokens": 3}
    streamed = host.answer(stream=True, return_perf_metrics=True, **asked)
    assert [response.get("kv_cache_reused_blocks") for response in streamed] == [[2], None, None]
    [whole] = host.answer(return_perf_metrics=True, num_return_sequences=2, **asked)
    assert whole["kv_cache_reused_blocks"] == [2]
    assert "kv_cache_reused_blocks" not in host.answer(**asked)[0]


def test_several_sequences_come_in_one_response_with_short_rows_padded(host: Host) -> None:
    [response] = host.answer(input_ids=[5, 6], max_tokens=3, num_return_sequences=2, pad_id=0, return_text=True)
    assert response["output_ids"] == [[5, 6, 7, 8, 9]] * 2
    assert response["sequence_index"] == [0, 1]
    assert response["batch_index"] == [0]
    assert response["finish_reason"] == ["length", "length"]
    assert len(response["text_output"]) == 2


def test_end_id_ends_the_answer(host: Host) -> None:
    [response] = host.answer(input_ids=[5, 6], max_tokens=9, end_id=8, exclude_input_in_output=True)
    assert response["output_ids"] == [[7, 8]]
    assert response["finish_reason"] == ["stop"]


def test_stop_words_end_the_answer(host: Host) -> None:
    stop = host.tokenizer.decode([9]).encode()
    [response] = host.answer(
        input_ids=[5], max_tokens=9, stop_words=[stop], return_text=True, exclude_input_in_output=True
    )
    assert response["text_output"] == [host.tokenizer.decode([6, 7, 8])]
    assert response["finish_reason"] == ["stop"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"text_input": b"", "max_tokens": 1}, "text_input: the prompt is empty"),
        ({"text_input": b"a", "max_tokens": 0}, "max_tokens: must lie between 1"),
        ({"text_input": b"a" * 25, "max_tokens": 1}, "text_input: 25 tokens are more than max_input_len (24)"),
        ({"input_ids": [300], "max_tokens": 1}, "input_ids: token id 300 is outside the vocabulary (0 to 299)"),
        ({"text_input": b"a", "max_tokens": 1, "lora_task_id": 1}, "lora_task_id: LoRA adapters are not available"),
    ],
)
def test_a_bad_request_is_an_invalid_argument(host: Host, values: dict[str, object], message: str) -> None:
    error = host.error(**values)
    assert re.match(re.escape(message), error.message())
    assert error.code() == pb.TritonError.INVALID_ARG


def test_a_full_queue_is_unavailable(host: Host, pipelines: list[FakePipeline]) -> None:
    pipelines[-1].may_step.clear()
    senders = [host.ask(input_ids=[5], max_tokens=1) for _ in range(8)]
    refused = [sender for sender in senders if sender.responses]
    assert refused
    assert refused[0].responses[0].error().code() == pb.TritonError.UNAVAILABLE
    assert "max_queue_size" in refused[0].responses[0].error().message()
    pipelines[-1].may_step.set()
    for sender in senders:
        assert sender.final.wait(5)


def test_a_cancelled_stream_gets_no_more_and_its_place_is_free(host: Host, pipelines: list[FakePipeline]) -> None:
    pipelines[-1].may_step.clear()
    sender = host.ask(input_ids=[5], max_tokens=30, stream=True)
    sender.cancelled = True
    pipelines[-1].may_step.set()
    assert sender.final.wait(5)
    assert len(sender.responses) <= 1
    assert host.answer(input_ids=[5], max_tokens=30)
    assert pipelines[-1].started[0].num_made <= 2


def test_a_failed_step_is_an_error_and_the_next_request_is_served(host: Host, pipelines: list[FakePipeline]) -> None:
    pipelines[-1].fault = RuntimeError("boom")
    error = host.error(input_ids=[5], max_tokens=3)
    assert "the engine failed in a step and was restarted: boom" in error.message()
    assert error.code() == pb.TritonError.INTERNAL
    assert host.answer(input_ids=[5], max_tokens=3)


def test_a_bug_in_reading_a_request_is_logged_and_answered(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host.model, "_tokenizer", None)
    pb.Logger.lines.clear()
    error = host.error(text_input=b"a", max_tokens=1)
    assert error.code() == pb.TritonError.INTERNAL
    assert any("Traceback" in line for line in pb.Logger.lines)


def test_unloading_fails_live_requests(host: Host, pipelines: list[FakePipeline]) -> None:
    pipelines[-1].may_step.clear()
    sender = host.ask(input_ids=[5], max_tokens=30, stream=True)
    unloading = threading.Thread(target=host.model.finalize)
    unloading.start()
    pipelines[-1].may_step.set()
    unloading.join(5)
    assert "being unloaded" in sender.responses[-1].error().message()

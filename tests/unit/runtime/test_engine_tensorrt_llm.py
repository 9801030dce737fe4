"""The text model in front of the C++ engine, with a fake backend and a fake engine: from tensors to tensors."""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import triton_python_backend_utils as pb

from scalellm_trt.runtime import engine_tensorrt_llm, signature
from scalellm_trt.runtime.hosted_model import TritonPythonModel
from tests.fakes import engine_models
from tests.fakes.pipelines import settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TYPES = {tensor.name: engine_models.DTYPES[tensor.data_type] for tensor in signature.INPUTS}
TOOLCHAINS = {"1.x": "tensorrt-llm-1.2.1", "0.13": "tensorrt-llm-0.13.0"}
LIMITS = {"max_batch_size": 2, "max_input_len": 24, "max_seq_len": 200, "max_queue_size": 4, "kv_cache_tokens": 256}


class Front:
    """A loaded text model and the engine's model that it asks."""

    def __init__(self, directory: Path, contract: str = "1.x", *, can_cancel: bool = True, **parameters: str) -> None:
        version = directory / "1"
        plan = engine_models.gpu_plan(name="tiny", toolchain=TOOLCHAINS[contract])
        [model, _] = engine_models.models_of(plan, engine_models.write_engine(version / "engine"))
        self.tokenizer = engine_models.tokenizer_of(version / "engine")
        parameters = {"engine_vocab_size": "300", "step_ms": "1", "contract": contract, **parameters}
        self.engine = engine_models.served(model, **parameters)
        self.engine.can_cancel = can_cancel
        pb.SERVED["tiny_engine"] = self.engine
        service = settings(
            engine="tensorrt_llm",
            engine_model="tiny_engine",
            engine_contract=contract,
            vocab_size=300,
            eos_token_ids=(299, 290),
            max_num_tokens=64,
            chunked_context=True,
            **LIMITS,
        )
        (version / "service.json").write_text(json.dumps(service.to_json()))
        self.model = TritonPythonModel()
        self.model.initialize({"model_repository": str(directory), "model_version": "1"})

    def ask(self, **values: object) -> Any:
        """Send one request and return its response sender."""
        tensors = {
            name: np.array([value if isinstance(value, list) else [value]], dtype=TYPES[name])
            for name, value in values.items()
        }
        request = pb.InferenceRequest(tensors)
        self.model.execute([request])
        return request.sender

    def answer(self, **values: object) -> list[dict[str, list[Any]]]:
        """Send one request of ids, wait for its end and return the outputs of every response."""
        given = {"exclude_input_in_output": True, **values}
        sender = self.ask(**given)
        assert sender.final.wait(5)
        for response in sender.responses:
            assert response.error() is None, response.error().message()
        return [response.values() for response in sender.responses]

    def error(self, **values: object) -> Any:
        sender = self.ask(**values)
        assert sender.final.wait(5)
        [response] = sender.responses
        return response.error()

    def ended(self) -> str:
        """Return how the engine ended its last request, which may take a moment more than the answer."""
        deadline = time.monotonic() + 30
        while not self.engine.model.events and time.monotonic() < deadline:
            time.sleep(0.005)
        return str(self.engine.model.events[-1])

    @property
    def asked(self) -> list[dict[str, Any]]:
        return [{t.name(): t.as_numpy().tolist() for t in request.inputs()} for request in self.engine.requests]

    def close(self) -> None:
        self.model.finalize()
        self.engine.model.finalize()
        pb.SERVED.clear()
        assert not [thread for thread in threading.enumerate() if thread.name in ("engine", "request", "fake engine")]


@pytest.fixture(params=["1.x", "0.13"])
def front(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Front]:
    front = Front(tmp_path, request.param, can_cancel=request.param == "1.x")
    yield front
    front.close()


def test_text_in_text_out_in_one_response(front: Front) -> None:
    [response] = front.answer(text_input=b"ab", max_tokens=3)
    last = front.tokenizer.encode("ab").ids[-1]
    assert response == {
        "text_output": [front.tokenizer.decode([last + 1, last + 2, last + 3])],
        "finish_reason": ["length"],
    }
    assert front.asked[0]["streaming"] == [[False]]


def test_a_stream_adds_up_to_the_unstreamed_ids_and_its_last_response_has_tokens_and_reason(front: Front) -> None:
    streamed = front.answer(input_ids=[5], max_tokens=6, stream=True)
    [whole] = front.answer(input_ids=[5], max_tokens=6)
    assert [token for response in streamed for token in response["output_ids"][0]] == whole["output_ids"][0]
    assert whole["output_ids"] == [[6, 7, 8, 9, 10, 11]]
    assert streamed[-1]["finish_reason"] == ["length"]
    assert streamed[-1]["output_ids"] != [[]]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("delivers", ["true", "false"])
def test_an_end_token_means_stop_whether_the_engine_delivers_it_or_not(
    tmp_path: Path, stream: bool, delivers: str
) -> None:
    front = Front(tmp_path, delivers_end_token=delivers)
    responses = front.answer(input_ids=[285], max_tokens=20, stream=stream, end_id=288)
    ids = [token for response in responses for token in response["output_ids"][0]]
    assert ids == [286, 287] + [288] * (delivers == "true")
    assert responses[-1]["finish_reason"] == ["stop"]
    assert front.ended().startswith("done")
    front.close()


def test_every_end_token_of_the_model_ends_an_answer(front: Front) -> None:
    [response] = front.answer(input_ids=[288], max_tokens=20)
    assert response["output_ids"] == [[289, 290]]
    assert response["finish_reason"] == ["stop"]
    assert (front.asked[0]["end_id"], front.asked[0]["stop_words_list"]) == ([[299]], [[[290], [1]]])


def test_min_tokens_holds_against_every_end_token(front: Front) -> None:
    [response] = front.answer(input_ids=[288], max_tokens=30, min_tokens=5)
    assert response["output_ids"] == [[289, 290, 291, 292, 293, 294, 295, 296, 297, 298]]
    assert response["finish_reason"] == ["stop"]  # 299, which this engine does not deliver
    [response] = front.answer(input_ids=[288], max_tokens=30, min_tokens=1)
    assert response["output_ids"] == [[289, 290]]
    assert front.ended().startswith(("cancelled", "stopped", "done"))


def test_a_stop_word_ends_the_answer_and_the_engines_work(front: Front) -> None:
    stop = front.tokenizer.decode([70, 71]).encode()
    [response] = front.answer(input_ids=[65], max_tokens=100, stop_words=[stop], return_text=True)
    assert response["text_output"] == [front.tokenizer.decode([66, 67, 68, 69])]
    assert response["finish_reason"] == ["stop"]
    assert front.ended().startswith("cancelled" if front.engine.can_cancel else "stopped")


def test_a_stop_word_of_one_token_is_the_engines_to_watch_for(front: Front) -> None:
    stop = front.tokenizer.decode([70]).encode()
    [response] = front.answer(input_ids=[65], max_tokens=100, stop_words=[stop], return_text=True)
    assert response["text_output"] == [front.tokenizer.decode([66, 67, 68, 69])]
    assert front.ended() == "done after 5 tokens"
    assert [70] in [words[:1] for words in [front.asked[0]["stop_words_list"][0][0]]]


def test_bad_words_and_a_bias_reach_the_engine(front: Front) -> None:
    bad = front.tokenizer.decode([67]).encode()
    [response] = front.answer(input_ids=[65], max_tokens=3, bad_words=[bad])
    assert response["output_ids"] == [[66, 68, 69]]
    [response] = front.answer(input_ids=[65], max_tokens=2, embedding_bias_words=[b"A"], embedding_bias_weights=[200.0])
    assert response["output_ids"] == [[front.tokenizer.encode("A").ids[0]] * 2]
    [response] = front.answer(
        input_ids=[65], max_tokens=2, embedding_bias_ids=[70, 9], embedding_bias_weights=[9.0, 200.0]
    )
    assert response["output_ids"] == [[9, 9]]


def test_sequences_differ_when_sampled_and_the_first_is_the_answer_to_a_request_for_one(front: Front) -> None:
    asked = {"input_ids": [5], "max_tokens": 4, "temperature": 1.0, "seed": 3}
    [one] = front.answer(**asked)
    [two] = front.answer(num_return_sequences=2, **asked)
    assert two["output_ids"][0] == one["output_ids"][0]
    assert len({tuple(row) for row in two["output_ids"]}) > 1
    assert two["finish_reason"] == ["length"] * 2
    [again] = front.answer(num_return_sequences=2, **asked)
    assert again == two


def test_greedy_sequences_are_made_once(front: Front) -> None:
    [response] = front.answer(input_ids=[5], max_tokens=2, num_return_sequences=2)
    assert response["output_ids"] == [[6, 7]] * 2
    assert len(front.engine.requests) == 1


def test_without_a_seed_answers_differ(front: Front) -> None:
    seeds = set()
    for _ in range(3):
        front.answer(input_ids=[5], max_tokens=1, temperature=1.0)
        seeds.add(front.asked[-1]["seed" if "seed" in front.asked[-1] else "random_seed"][0][0])
    assert len(seeds) == 3


def test_log_probs_and_counts_come_when_asked(front: Front) -> None:
    responses = front.answer(
        input_ids=[5, 6], max_tokens=3, stream=True, return_log_probs=True, return_num_output_tokens=True
    )
    assert sum(response["num_output_tokens"][0] for response in responses) == 3
    assert [value for response in responses for value in response["output_log_probs"][0]] == [-0.5] * 3
    assert responses[-1]["cum_log_probs"] == [-1.5]


def test_inner_requests_have_their_own_ids_cpu_memory_and_only_the_outputs_that_are_needed(front: Front) -> None:
    front.answer(input_ids=[5], max_tokens=1)
    front.answer(input_ids=[5], max_tokens=1)
    assert len({request.request_id() for request in front.engine.requests}) == 2
    for request in front.engine.requests:
        assert request.preferred_memory.memory_type == pb.TRITONSERVER_MEMORY_CPU
        assert request.requested_output_names() == ["output_ids", "sequence_length"]


def test_a_client_that_leaves_frees_the_engine(front: Front) -> None:
    sender = front.ask(input_ids=[5], max_tokens=150, stream=True)
    sender.cancelled = True
    assert sender.final.wait(5)
    assert front.ended().startswith("cancelled" if front.engine.can_cancel else "stopped")
    assert front.answer(input_ids=[5], max_tokens=2)


def test_a_stop_that_overtook_its_victim_is_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_tensorrt_llm, "STOP_AGAIN_S", 0.02)
    front = Front(tmp_path, "0.13", can_cancel=False, ignores_stops="2", step_ms="20")
    sender = front.ask(input_ids=[5], max_tokens=150, stream=True)
    sender.cancelled = True
    assert front.ended().startswith("stopped")
    assert len([request for request in front.asked if "stop" in request]) >= 3
    front.close()


def test_a_cancel_that_shows_no_effect_is_followed_by_a_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_tensorrt_llm, "CANCEL_GRACE_S", 0.02)
    monkeypatch.setattr(pb.CancellableResponseIterator, "cancel", lambda self: None)
    front = Front(tmp_path, step_ms="20")
    sender = front.ask(input_ids=[5], max_tokens=150, stream=True)
    sender.cancelled = True
    assert front.ended().startswith("stopped")
    front.close()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"input_ids": [300], "max_tokens": 1}, "input_ids: token id 300 is outside the vocabulary"),
        ({"input_ids": [1] * 25, "max_tokens": 1}, "input_ids: 25 tokens are more than max_input_len (24)"),
        ({"input_ids": [1], "max_tokens": 200}, "max_tokens: a prompt of 1 tokens and 200 new ones make 201"),
        ({"input_ids": [1], "max_tokens": 1, "lora_task_id": 1}, "lora_task_id: the engine is built without LoRA"),
        ({"input_ids": [1], "max_tokens": 1, "guided_decoding_guide": b"{}"}, "guided_decoding_guide: guided decoding"),
        (
            {"input_ids": [1], "max_tokens": 1, "embedding_bias_words": [b"a"]},
            "embedding_bias_weights: must hold one value for each of the 1 words, found 0",
        ),
        (
            {"input_ids": [1], "max_tokens": 1, "embedding_bias_ids": [1, 2], "embedding_bias_weights": [1.0]},
            "embedding_bias_weights: must hold one value for each of the 2 ids, found 1",
        ),
        (
            {"input_ids": [1], "max_tokens": 1, "embedding_bias_ids": [-1], "embedding_bias_weights": [1.0]},
            "embedding_bias_ids: must lie between 0 and",
        ),
        (
            {"input_ids": [1], "max_tokens": 1, "embedding_bias_ids": [1], "embedding_bias_words": [b"a"]},
            "embedding_bias_ids: must not be given together",
        ),
    ],
)
def test_a_bad_request_is_an_invalid_argument_that_the_engine_never_sees(
    front: Front, values: dict[str, object], message: str
) -> None:
    error = front.error(**values)
    assert error.message().startswith(message)
    assert error.code() == pb.TritonError.INVALID_ARG
    assert not front.engine.requests


def test_a_full_queue_is_unavailable_before_the_engine_rejects_anything(tmp_path: Path) -> None:
    front = Front(tmp_path, step_ms="30")
    senders = [front.ask(input_ids=[5], max_tokens=3) for _ in range(9)]
    refused = [sender.responses[0].error() for sender in senders if sender.responses]
    assert {error.code() for error in refused} == {pb.TritonError.UNAVAILABLE}
    assert len(refused) == 9 - LIMITS["max_batch_size"] - LIMITS["max_queue_size"]
    assert refused[0].message().startswith("max_queue_size: 4 requests are waiting already")
    for sender in senders:
        assert sender.final.wait(5)
    front.close()


def test_a_rejection_of_the_engine_is_passed_on_with_its_words(tmp_path: Path) -> None:
    front = Front(tmp_path, engine_max_input_len="2")
    error = front.error(input_ids=[5, 6, 7], max_tokens=1)
    assert error.message() == "the engine refused the request: Prompt length (3) exceeds maximum input length (2)"
    assert error.code() == pb.TritonError.INTERNAL
    front.close()


def test_an_engine_that_is_not_loaded_is_an_error(front: Front) -> None:
    pb.SERVED.clear()
    assert "tiny_engine could not be asked" in front.error(input_ids=[5], max_tokens=1).message()


def test_unloading_fails_live_requests_and_frees_the_engine(front: Front) -> None:
    sender = front.ask(input_ids=[5], max_tokens=150, stream=True)
    front.model.finalize()
    assert "being unloaded" in sender.responses[-1].error().message()
    assert not front.ended().startswith("done")


def test_many_requests_at_once_get_their_own_tokens(tmp_path: Path) -> None:
    front = Front(tmp_path)
    senders = {first: front.ask(input_ids=[first], max_tokens=5, stream=True) for first in range(10, 16)}
    for first, sender in senders.items():
        assert sender.final.wait(5)
        ids = [token for response in sender.responses for token in response.values()["output_ids"][0]]
        prompt = [first]
        assert [token for token in ids if token not in prompt] == [first + offset for offset in range(1, 6)]
    front.close()

"""The text contract through the real tritonserver with real weights: what each input of a request really does."""

from __future__ import annotations

import json
import queue
import threading
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from scalellm_trt.runtime import signature

if TYPE_CHECKING:
    from tests.integration.conftest import Server

pytestmark = pytest.mark.integration

MODEL = "smollm2-135m-cpu"
QUESTION = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
COUNTING = "one two three four five six seven eight nine ten eleven twelve"
EMOJI = "Repeat: 🙂🙃 héllo 你好 🙂🙃 héllo 你好 🙂🙃 héllo 你好 🙂🙃 héllo"
TYPES = {tensor.name: tensor.data_type.removeprefix("TYPE_") for tensor in signature.INPUTS}
DTYPES: dict[str, Any] = {
    "STRING": np.object_,
    "BOOL": np.bool_,
    "INT32": np.int32,
    "UINT64": np.uint64,
    "FP32": np.float32,
}


class Answer:
    """The responses of one request as they come over gRPC."""

    def __init__(self, server: Server, model: str = MODEL, /, **inputs: object) -> None:
        import tritonclient.grpc as triton

        self.responses: list[dict[str, list[Any]]] = []
        self.times: list[float] = []
        self.error: str | None = None
        self._queue: queue.Queue[tuple[Any, Any]] = queue.Queue()
        self._client = triton.InferenceServerClient(server.grpc_url)
        self._client.start_stream(lambda result, error: self._queue.put((result, error)))
        tensors = []
        for name, value in inputs.items():
            array = np.array([value if isinstance(value, list) else [value]], dtype=DTYPES[TYPES[name]])
            tensor = triton.InferInput(name, array.shape, TYPES[name].replace("STRING", "BYTES"))
            tensor.set_data_from_numpy(array)
            tensors.append(tensor)
        self.began = time.monotonic()
        self._client.async_stream_infer(model, tensors, enable_empty_final_response=True)

    def next(self, timeout_s: float = 60) -> bool:
        """Take one response; return whether more follow."""
        result, error = self._queue.get(timeout=timeout_s)
        if error is not None:
            self.error = str(error)
            return False
        response = result.get_response()
        if response.outputs:
            names = [output.name for output in response.outputs]
            self.responses.append({name: result.as_numpy(name)[0].tolist() for name in names})
            self.times.append(time.monotonic() - self.began)
        return not response.parameters["triton_final_response"].bool_param

    def all(self) -> Answer:
        """Take the responses to the end."""
        while self.next():
            pass
        # Not cancelled: after a cancel of a finished stream Triton 2.51 takes 30 s to unload the model.
        self._client.stop_stream()
        self._client.close()
        return self

    def cancel(self) -> None:
        """Leave in the middle."""
        self._client.stop_stream(cancel_requests=True)
        self._client.close()

    @property
    def text(self) -> str:
        return b"".join(response["text_output"][0] for response in self.responses).decode()

    @property
    def ids(self) -> list[int]:
        return [token for response in self.responses for token in response["output_ids"][0]]


def ask(server: Server, text: str = QUESTION, *, max_tokens: int = 24, **inputs: object) -> Answer:
    """Ask with a text and take the whole answer, without the prompt."""
    prompt = {} if "input_ids" in inputs else {"text_input": text.encode()}
    fixed = {**prompt, "max_tokens": max_tokens, "exclude_input_in_output": True}
    return Answer(server, **{**fixed, **inputs}).all()


def generate(server: Server, **body: object) -> tuple[int, dict[str, Any]]:
    """Ask over HTTP; return the status and the JSON."""
    request = urllib.request.Request(
        f"http://{server.http_url}/v2/models/{MODEL}/generate",
        json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def test_a_question_is_answered_in_one_response(server: Server) -> None:
    answer = ask(server)
    assert len(answer.responses) == 1
    assert answer.text == "The capital of France is Paris."
    assert answer.responses[0]["finish_reason"] == [b"stop"]


def test_the_prompt_is_repeated_by_default_as_by_nvidias_ensemble(server: Server) -> None:
    assert ask(server, exclude_input_in_output=False).text == QUESTION + "The capital of France is Paris."


def test_a_single_stream_gets_its_tokens_as_they_come(server: Server) -> None:
    answer = ask(server, stream=True, return_num_output_tokens=True, return_num_input_tokens=True)
    counts = [response["num_output_tokens"][0] for response in answer.responses]
    assert sum(counts) == 8
    assert counts[0] == 1
    # Steps of less than response_spacing_ms put two tokens into a response, or three where one step was very fast.
    assert max(counts) <= 3
    assert {response["num_input_tokens"][0] for response in answer.responses} == {
        len(ask(server, return_output_ids=True, exclude_input_in_output=False, max_tokens=1).ids) - 1
    }


@pytest.mark.parametrize("text", [QUESTION, EMOJI, COUNTING])
@pytest.mark.parametrize("stop_words", [[], ["seven"], ["🙃"]])
def test_streamed_text_is_unstreamed_text_byte_for_byte(server: Server, text: str, stop_words: list[str]) -> None:
    words = [word.encode() for word in stop_words] or [b""]
    whole = ask(server, text, max_tokens=40, stop_words=words)
    streamed = ask(server, text, max_tokens=40, stop_words=words, stream=True)
    assert streamed.text == whole.text
    assert not any(word in whole.text for word in stop_words)


def test_ids_in_give_the_ids_of_the_same_text(server: Server) -> None:
    ids = ask(server, return_output_ids=True, exclude_input_in_output=False).ids
    prompt = ids[: len(ids) - len(ask(server, return_output_ids=True).ids)]
    answer = ask(server, input_ids=prompt, stream=True)
    assert prompt + answer.ids == ids
    assert all("text_output" not in response for response in answer.responses)


def test_max_tokens_is_exact_and_says_length(server: Server) -> None:
    answer = ask(server, COUNTING, max_tokens=7, return_num_output_tokens=True)
    assert answer.responses[0]["num_output_tokens"] == [7]
    assert answer.responses[0]["finish_reason"] == [b"length"]


def test_stop_words_end_the_answer_and_never_show(server: Server) -> None:
    free = ask(server, COUNTING, max_tokens=30).text
    stop = free[12:19]
    answer = ask(server, COUNTING, max_tokens=30, stop_words=[stop.encode()], stream=True)
    assert answer.text == free[: free.index(stop)]
    assert answer.responses[-1]["finish_reason"] == [b"stop"]


def test_min_tokens_holds_against_the_end_token_and_stop_words(server: Server) -> None:
    long = ask(server, min_tokens=20, return_num_output_tokens=True).responses[0]
    assert long["num_output_tokens"][0] >= 20
    word = ask(server, min_tokens=6, stop_words=[b"The"], return_num_output_tokens=True)
    assert word.text.startswith("The")


def test_the_same_seed_gives_the_same_text_alone(server: Server) -> None:
    first, again, other = (ask(server, COUNTING, temperature=1.0, seed=seed).text for seed in (11, 11, 12))
    assert first == again
    assert first != other


def test_greedy_is_repeatable_and_top_k_one_is_greedy(server: Server) -> None:
    assert ask(server, temperature=1.0, top_k=1).text == ask(server, temperature=0.0).text == ask(server).text


def test_several_greedy_sequences_are_equal_and_sampled_ones_differ(server: Server) -> None:
    greedy = ask(server, num_return_sequences=2).responses
    assert len(greedy) == 1
    assert greedy[0]["text_output"] == [b"The capital of France is Paris."] * 2
    assert greedy[0]["sequence_index"] == [0, 1]
    sampled = ask(server, COUNTING, num_return_sequences=3, temperature=1.0, seed=1).responses[0]["text_output"]
    assert len(set(sampled)) == 3


def test_streamed_sequences_add_up(server: Server) -> None:
    answer = ask(server, COUNTING, num_return_sequences=2, stream=True, temperature=1.0, seed=5)
    texts = {0: b"", 1: b""}
    for response in answer.responses:
        texts[response["sequence_index"][0]] += response["text_output"][0]
    whole = ask(server, COUNTING, num_return_sequences=2, temperature=1.0, seed=5).responses[0]["text_output"]
    assert set(map(len, texts.values())) != {0}
    assert texts[0] == whole[0]


def test_repetition_penalty_brings_other_words(server: Server) -> None:
    free = ask(server, COUNTING * 2, max_tokens=40, end_id=-1).text.split()
    penalized = ask(server, COUNTING * 2, max_tokens=40, end_id=-1, repetition_penalty=2.0).text.split()
    assert len(set(penalized)) / len(penalized) > len(set(free)) / len(free)


def test_bad_words_do_not_come_and_favoured_ones_do(server: Server) -> None:
    assert "Paris" in ask(server).text
    assert "Paris" not in ask(server, bad_words="Paris").text
    assert "Lyon" in ask(server, embedding_bias_words=" Lyon", embedding_bias_weights=50.0).text


def test_log_probs_are_those_of_the_tokens_and_add_up(server: Server) -> None:
    answer = ask(server, stream=True, return_log_probs=True)
    log_probs = [value for response in answer.responses for value in response["output_log_probs"][0]]
    assert all(-20 < value <= 0 for value in log_probs)
    assert answer.responses[-1]["cum_log_probs"][0] == pytest.approx(sum(log_probs), abs=1e-4)
    whole = ask(server, return_log_probs=True).responses[0]
    assert whole["output_log_probs"][0] == pytest.approx(log_probs, abs=1e-4)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"max_tokens": 0}, "max_tokens: must lie between 1 and"),
        ({"max_tokens": 3000}, "more than max_seq_len (2048)"),
        ({"text_input": "", "max_tokens": 1}, "text_input: the prompt is empty"),
        ({"text_input": "a b" * 3000}, "text_input: 3001 tokens are more than max_input_len (2047)"),
        ({"temperature": -1.0}, "temperature: must be between 0 and 100, found -1"),
        ({"top_p": 2.0}, "top_p: must be between 0 and 1, found 2"),
        ({"beam_width": 4}, "beam_width: this engine has no beam search"),
        ({"lora_task_id": 1}, "lora_task_id: LoRA adapters are not available"),
        ({"guided_decoding_guide": "{}"}, "guided_decoding_guide: guided decoding is not available"),
        ({"presence_penalty": 2.5}, "presence_penalty: must be between -2 and 2, found 2.5"),
    ],
)
def test_a_bad_request_names_the_field_and_the_limit(server: Server, inputs: dict[str, object], message: str) -> None:
    status, body = generate(server, **{"text_input": "hi", "max_tokens": 4, **inputs})
    assert status == 400
    assert message in body["error"]


def test_a_request_joins_and_leaves_while_another_runs(server: Server) -> None:
    long = Answer(server, text_input=COUNTING.encode(), max_tokens=150, end_id=-1, stream=True)
    assert long.next()
    short = ask(server, max_tokens=3, stream=True)
    assert short.times[-1] < 60
    done_before = len(long.responses)
    long.all()
    assert done_before < len(long.responses)
    alone = ask(server, COUNTING, max_tokens=150, end_id=-1)
    assert long.text[:40] == alone.text[:40]


def test_bad_requests_and_cancels_do_not_harm_a_running_one(server: Server) -> None:
    expected = ask(server, COUNTING, max_tokens=60, end_id=-1).text
    running = Answer(
        server, text_input=COUNTING.encode(), max_tokens=60, end_id=-1, stream=True, exclude_input_in_output=True
    )
    assert running.next()
    for _ in range(5):
        assert ask(server, max_tokens=0).error
        leaving = Answer(server, text_input=COUNTING.encode(), max_tokens=500, stream=True)
        leaving.next()
        leaving.cancel()
    running.all()
    assert running.error is None
    assert running.text[:40] == expected[:40]


def test_cancelling_frees_the_place_at_once(server: Server) -> None:
    """64 streams fill the batch; when they leave, the next one must not wait for their 1,900 tokens."""
    streams = [Answer(server, text_input=COUNTING.encode(), max_tokens=400, end_id=-1, stream=True) for _ in range(64)]
    for answer in streams:
        assert answer.next()
    leaving = [threading.Thread(target=answer.cancel) for answer in streams]
    for thread in leaving:
        thread.start()
    for thread in leaving:
        thread.join()
    late = ask(server, max_tokens=2, stream=True)
    assert late.error is None
    # 64 sequences make 400 tokens in minutes; two steps of 64 and one prompt take seconds even on a busy machine.
    assert late.times[0] < 15

"""The text model in the real tritonserver, in front of a model that behaves as TensorRT-LLM's C++ backend does.

This server's python backend (Triton 2.51) cannot cancel an inner request, so here the stop request does it.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from scalellm_trt.triton import binary, server
from tests.fakes import engine_models
from tests.integration.conftest import Server
from tests.integration.test_text_contract import Answer
from tests.integration.test_triton_server import options_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tokenizers import Tokenizer

pytestmark = pytest.mark.integration

STEP_MS = 10
PARAMETERS = {"engine_vocab_size": "300", "step_ms": str(STEP_MS)}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Tokenizer]]:
    project = tmp_path_factory.mktemp("front")
    root = engine_models.publish_services(project, **PARAMETERS)
    log = project / "server.log"
    with server.start(binary.find(), options_for(root), log=log) as started:
        endpoint = started.wait_ready(60)
        assert endpoint.model_names == ("new", "new_engine", "old", "old_engine")
        yield (
            Server(
                grpc_url=endpoint.grpc_address,
                http_url=endpoint.http_address,
                metrics_url=endpoint.metrics_address,
                pid=endpoint.pid,
                repository=root,
                log=log,
            ),
            engine_models.tokenizer_of(project / "new"),
        )


class Service:
    """A service of the running server."""

    def __init__(self, server: Server, name: str, tokenizer: Tokenizer) -> None:
        self.server, self.name, self.tokenizer = server, name, tokenizer

    def start(self, **inputs: object) -> Answer:
        return Answer(self.server, self.name, **{"exclude_input_in_output": True, **inputs})

    def ask(self, **inputs: object) -> Answer:
        return self.start(**inputs).all()

    def wait_for_log(self, text: str, timeout_s: float = 30) -> None:
        deadline = time.monotonic() + timeout_s
        while text not in self.server.log.read_text():
            assert time.monotonic() < deadline, f"{text!r} is not in the log: {self.server.log.read_text()[-2000:]}"
            time.sleep(0.02)

    def count_in_log(self, text: str) -> int:
        return self.server.log.read_text().count(text)


@pytest.fixture(params=engine_models.SERVICES)
def service(request: pytest.FixtureRequest, running: tuple[Server, Tokenizer]) -> Service:
    return Service(running[0], request.param, running[1])


def test_text_in_text_out(service: Service) -> None:
    last = service.tokenizer.encode("ab").ids[-1]
    answer = service.ask(text_input=b"ab", max_tokens=3)
    assert answer.text == service.tokenizer.decode([last + 1, last + 2, last + 3])
    assert answer.responses[0]["finish_reason"] == [b"length"]


def test_a_stream_gets_tokens_as_the_engine_makes_them(service: Service) -> None:
    answer = service.ask(input_ids=[8], max_tokens=20, stream=True)
    assert answer.ids == list(range(9, 29))
    assert len(answer.responses) > 10
    assert answer.times[-1] - answer.times[0] > 15 * STEP_MS / 1000
    # The engine's last response carries a token together with the final flag; so does ours.
    assert answer.responses[-1]["finish_reason"] == [b"length"]
    assert answer.responses[-1]["output_ids"] != [[]]


def test_the_end_token_ends_an_answer_though_it_is_not_delivered(service: Service) -> None:
    answer = service.ask(input_ids=[60], max_tokens=20, end_id=63, stream=True)
    assert answer.ids == [61, 62]
    assert answer.responses[-1]["finish_reason"] == [b"stop"]


def test_a_stop_word_ends_the_answer_and_stops_the_engine(service: Service) -> None:
    before = service.count_in_log("stopped after")
    stop = service.tokenizer.decode([70, 71]).encode()
    answer = service.ask(input_ids=[65], max_tokens=60, stop_words=[stop], return_text=True)
    assert answer.text == service.tokenizer.decode([66, 67, 68, 69])
    deadline = time.monotonic() + 30
    while service.count_in_log("stopped after") == before:
        assert time.monotonic() < deadline, "the engine went on"
        time.sleep(0.02)


def test_a_client_that_leaves_stops_the_engine(service: Service) -> None:
    before = service.count_in_log("stopped after")
    answer = service.start(input_ids=[5], max_tokens=60, end_id=-1, stream=True)
    assert answer.next()
    left = time.monotonic()
    answer.cancel()
    while service.count_in_log("stopped after") == before:
        assert time.monotonic() - left < 0.5, "the engine went on"
        time.sleep(0.01)
    assert service.ask(input_ids=[5], max_tokens=2).ids == [6, 7]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"input_ids": [1] * 64, "max_tokens": 1}, "input_ids: 64 tokens are more than max_input_len (63)"),
        ({"input_ids": [1], "max_tokens": 64}, "max_tokens: a prompt of 1 tokens and 64 new ones make 65"),
        ({"input_ids": [1], "max_tokens": 1, "lora_task_id": 1}, "lora_task_id: the engine is built without LoRA"),
    ],
)
def test_a_bad_request_is_refused_in_our_words(service: Service, inputs: dict[str, Any], message: str) -> None:
    answer = service.ask(**inputs)
    assert answer.error is not None
    assert message in answer.error


def test_many_at_once_get_their_own_tokens_and_too_many_a_refusal(service: Service) -> None:
    answers = [service.start(input_ids=[first], max_tokens=20, stream=True) for first in range(10, 30)]
    threads = [threading.Thread(target=answer.all) for answer in answers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    refused = [answer.error for answer in answers if answer.error is not None]
    assert len(refused) == 20 - 4 - 8  # max_batch_size and max_queue_size
    assert all("max_queue_size: 8 requests are waiting already" in error for error in refused)
    for first, answer in zip(range(10, 30), answers, strict=True):
        if answer.error is None:
            assert answer.ids == list(range(first + 1, first + 21))


def test_sampled_sequences_and_log_probs(service: Service) -> None:
    asked = {"input_ids": [5], "max_tokens": 4, "temperature": 1.0, "seed": 3, "return_log_probs": True}
    one, two = service.ask(**asked), service.ask(num_return_sequences=2, **asked)
    rows = two.responses[0]["output_ids"]
    assert rows[0] == one.responses[0]["output_ids"][0]
    assert rows[0] != rows[1]
    assert one.responses[0]["cum_log_probs"] == [-2.0]

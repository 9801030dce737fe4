"""The gateway with an engine of the C++ contract in the real tritonserver: no text model between them.

The engine is a python model that behaves as TensorRT-LLM's backend does (tests/fakes/engine_model.py).
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx
import openai
import pytest

from scalellm_trt.triton import binary, server
from tests.fakes import engine_models
from tests.fakes.gateways import RunningGateway, running
from tests.integration.test_triton_server import options_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tokenizers import Tokenizer

pytestmark = pytest.mark.integration

# Longer prompts than these pass the gateway, so that the engine's own refusal shows.
PARAMETERS = {"engine_vocab_size": "300", "step_ms": "3", "engine_max_input_len": "40"}


class Served:
    """Server and gateway, both running."""

    def __init__(self, gateway: RunningGateway, url: str, log: Path, tokenizer: Tokenizer) -> None:
        self.gateway, self.url, self._log, self.tokenizer = gateway, url, log, tokenizer

    def count(self, text: str) -> int:
        return self._log.read_text().count(text)

    def wait_for(self, text: str, before: int, timeout_s: float = 30) -> None:
        deadline = time.monotonic() + timeout_s
        while self.count(text) == before:
            assert time.monotonic() < deadline, f"{text!r} is not in the log"
            time.sleep(0.005)

    def num_requests(self, model: str) -> int:
        """Return how many requests a model of the server has had."""
        from tritonclient.grpc import InferenceServerClient

        with InferenceServerClient(self.url) as client:
            (stats,) = client.get_inference_statistics(model, as_json=False).model_stats
        return int(stats.inference_stats.success.count + stats.inference_stats.fail.count)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    project = tmp_path_factory.mktemp("gateway_engine")
    root = engine_models.publish_services(project, **PARAMETERS)
    log = project / "server.log"
    with server.start(binary.find(), options_for(root), log=log) as started:
        endpoint = started.wait_ready(60)
        with running(root, endpoint.grpc_address, project / "gateway.log") as gateway:
            yield Served(gateway, endpoint.grpc_address, log, engine_models.tokenizer_of(project / "new"))


@pytest.fixture
def client(served: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{served.gateway.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(params=engine_models.SERVICES)
def model(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _ask(client: openai.OpenAI, model: str, prompt: list[int], **fields: Any) -> tuple[str, str, int]:
    """Return text, finish reason and number of tokens of one answer, in a stream or not."""
    if fields.get("stream"):
        fields["stream_options"] = {"include_usage": True}
    answer: Any = client.completions.create(model=model, prompt=prompt, **{"temperature": 0, **fields})
    parts = list(answer) if fields.get("stream") else [answer]
    choices = [choice for part in parts for choice in part.choices]
    return "".join(choice.text for choice in choices), choices[-1].finish_reason, parts[-1].usage.completion_tokens


def _grows(served: Served, model: str, before: int) -> bool:
    """Return whether a model has had a request since; the server counts a moment after the answer."""
    deadline = time.monotonic() + 5
    while served.num_requests(model) == before:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.mark.parametrize("stream", [False, True])
def test_tokens_come_from_the_engine_itself(served: Served, client: openai.OpenAI, model: str, stream: bool) -> None:
    """The last one comes together with the final flag."""
    before, engine_before = served.num_requests(model), served.num_requests(f"{model}_engine")
    expected = served.tokenizer.decode(list(range(9, 29)))
    assert _ask(client, model, [8], max_tokens=20, stream=stream) == (expected, "length", 20)
    assert _grows(served, f"{model}_engine", engine_before)
    assert served.num_requests(model) == before


@pytest.mark.parametrize("stream", [False, True])
def test_end_tokens_end_an_answer_delivered_or_not(client: openai.OpenAI, model: str, stream: bool) -> None:
    """The engine watches for id 2 itself and keeps it; id 7 is a stop word to it, which it delivers."""
    assert _ask(client, model, [0], max_tokens=20, stream=stream)[1:] == ("stop", 1)
    assert _ask(client, model, [4], max_tokens=20, stream=stream)[1:] == ("stop", 3)
    text, reason, count = _ask(client, model, [0], max_tokens=5, stream=stream, extra_body={"ignore_eos": True})
    assert (reason, count) == ("length", 5)
    assert text


@pytest.mark.parametrize("stream", [False, True])
def test_min_tokens_holds_the_end_back(client: openai.OpenAI, model: str, stream: bool) -> None:
    found = _ask(client, model, [0], max_tokens=9, stream=stream, extra_body={"min_tokens": 6})
    assert found[1] in ("stop", "length")
    assert found[2] >= 6


@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_text_is_never_shown_and_stops_the_engine(
    served: Served, client: openai.OpenAI, model: str, stream: bool
) -> None:
    before = served.count("cancelled after")
    stop = served.tokenizer.decode([70, 71])
    expected = served.tokenizer.decode([66, 67, 68, 69])
    assert _ask(client, model, [65], max_tokens=60, stop=[stop], stream=stream)[:2] == (expected, "stop")
    served.wait_for("cancelled after", before)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_stops_the_engine(served: Served, model: str, stream: bool) -> None:
    before = served.count("cancelled after")
    body = {"model": model, "prompt": [5], "max_tokens": 58, "stream": stream, "ignore_eos": True}
    with httpx.Client(base_url=served.gateway.url, timeout=httpx.Timeout(5, read=0.05)) as http:
        if stream:
            with http.stream("POST", "/v1/completions", json=body) as response:
                next(response.iter_bytes())
        else:
            with pytest.raises(httpx.ReadTimeout):
                http.post("/v1/completions", json=body)
    served.wait_for("cancelled after", before)  # an answer that came to its end is not told so


def test_several_answers_differ_as_their_seeds_do(served: Served, client: openai.OpenAI, model: str) -> None:
    """Engines of 0.13 cannot: there the text model makes several requests of it."""
    before = served.num_requests(model)
    answer = client.completions.create(model=model, prompt=[20], n=3, max_tokens=4, temperature=1, seed=1)
    texts = [choice.text for choice in answer.choices]
    assert len(set(texts)) > 1
    assert [choice.finish_reason for choice in answer.choices] == ["length"] * 3
    assert (_grows(served, model, before)) == (model == "old")
    greedy = client.completions.create(model=model, prompt=[20], n=3, max_tokens=4, temperature=0)
    assert {choice.text for choice in greedy.choices} == {served.tokenizer.decode([21, 22, 23, 24])}
    assert greedy.usage is not None
    assert greedy.usage.completion_tokens == 12


@pytest.mark.parametrize("stream", [False, True])
def test_usage_says_what_the_engine_had_where_its_contract_can(client: openai.OpenAI, model: str, stream: bool) -> None:
    asked: dict[str, Any] = {"stream_options": {"include_usage": True}} if stream else {}
    answer: Any = client.completions.create(model=model, prompt=[20] * 40, max_tokens=3, stream=stream, **asked)
    usage = (list(answer)[-1] if stream else answer).usage
    cached = usage.prompt_tokens_details and usage.prompt_tokens_details.cached_tokens
    assert cached == (None if model == "old" else 32)


@pytest.mark.parametrize("stream", [False, True])
def test_log_probs_belong_to_the_tokens(client: openai.OpenAI, model: str, stream: bool) -> None:
    answer: Any = client.completions.create(
        model=model, prompt=[65], max_tokens=5, temperature=0, logprobs=0, stream=stream
    )
    found = [part.choices[0].logprobs for part in (answer if stream else [answer])]
    assert [value for part in found for value in part.token_logprobs] == [-0.5] * 5


def test_what_the_engine_refuses_is_no_broken_server(served: Served, client: openai.OpenAI, model: str) -> None:
    """It says INTERNAL for everything; what the gateway can tell it refuses itself."""
    for prompt in ([5] * 50, [5] * 64):
        with pytest.raises(openai.BadRequestError) as refused:
            _ask(client, model, prompt, max_tokens=5)
        assert refused.value.code == "context_length_exceeded"
    assert httpx.get(f"{served.gateway.url}/health/ready").status_code == 200
    assert _ask(client, model, [8], max_tokens=2)[2] == 2


def test_many_answers_are_made_at_once(served: Served, client: openai.OpenAI, model: str) -> None:
    def ask(number: int) -> str:
        return _ask(client, model, [10 + number], max_tokens=30, stream=True)[0]

    with ThreadPoolExecutor(16) as pool:
        texts = list(pool.map(ask, range(16)))
    assert texts == [served.tokenizer.decode(list(range(11 + number, 41 + number))) for number in range(16)]

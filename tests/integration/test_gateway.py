"""The gateway in front of the real tritonserver with real weights, asked by OpenAI's own client."""

from __future__ import annotations

import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx
import openai
import pytest

from tests.fakes.gateways import RunningGateway, running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.conftest import Server

pytestmark = pytest.mark.integration
MODEL = "smollm2-135m-cpu"
QUESTION: Any = [{"role": "user", "content": "What is the capital of France?"}]
EMOJI = "Repeat: 🙂🙃 héllo 你好 🙂🙃 héllo 你好 🙂🙃 héllo 你好 🙂🙃 héllo"


@pytest.fixture(scope="module")
def gateway(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    log = tmp_path_factory.mktemp("gateway") / "log"
    with running(server.repository, server.grpc_url, log) as gateway:
        yield gateway


@pytest.fixture
def client(gateway: RunningGateway) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def _text(client: openai.OpenAI, prompt: str, **fields: Any) -> str:
    answer: Any = client.completions.create(
        model=MODEL, prompt=prompt, **{"max_tokens": 40, "temperature": 0, **fields}
    )
    return "".join(part.choices[0].text for part in (answer if fields.get("stream") else [answer]))


@pytest.mark.parametrize("stream", [False, True])
def test_a_chat_is_answered(client: openai.OpenAI, stream: bool) -> None:
    answer: Any = client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0, stream=stream)
    if stream:
        text = "".join(part.choices[0].delta.content or "" for part in answer)
    else:
        text = answer.choices[0].message.content
        assert answer.choices[0].finish_reason == "stop"
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (37, 8)
    assert text == "The capital of France is Paris."


@pytest.mark.parametrize("stop", [None, ["🙃", "zz"], "llo 你"])
@pytest.mark.parametrize("prompt", [EMOJI, "one two three four five six"])
def test_streamed_text_is_unstreamed_text(client: openai.OpenAI, prompt: str, stop: Any) -> None:
    whole = _text(client, prompt, stop=stop)
    assert _text(client, prompt, stop=stop, stream=True) == whole
    assert stop is None or not any(word in whole for word in ([stop] if isinstance(stop, str) else stop))


def test_the_same_seed_gives_the_same_answer(client: openai.OpenAI) -> None:
    first, again, other = (_text(client, "one two three", temperature=1, seed=seed) for seed in (-11, -11, 12))
    assert first == again
    assert first != other


def test_several_answers_and_log_probs_come_back(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=QUESTION, n=2, temperature=0, logprobs=True)
    assert [choice.message.content for choice in answer.choices] == ["The capital of France is Paris."] * 2
    assert answer.choices[0].logprobs is not None
    tokens = answer.choices[0].logprobs.content or []
    assert "".join(token.token for token in tokens) == "The capital of France is Paris."
    assert all(-5 < token.logprob < 0 for token in tokens)


def test_what_the_engine_cannot_do_is_refused_by_name(client: openai.OpenAI) -> None:
    for fields in ({"best_of": 2}, {"suffix": "x"}, {"response_format": {"type": "json_object"}}):
        with pytest.raises(openai.BadRequestError, match=next(iter(fields))):
            _text(client, "x", extra_body=fields)


def test_what_is_said_of_tokens_counts(client: openai.OpenAI) -> None:
    favoured = _text(client, "x", max_tokens=3, logit_bias={"300": 100})
    assert favoured == favoured[: len(favoured) // 3] * 3
    plain = _text(client, "1, 2, 3,", max_tokens=4)
    assert "4" in plain
    assert "4" not in _text(client, "1, 2, 3,", max_tokens=4, extra_body={"bad_words": ["4"]})


def test_many_requests_run_at_once(client: openai.OpenAI) -> None:
    prompts = [f"Count from {number}:" for number in range(16)]
    with ThreadPoolExecutor(16) as pool:
        texts = list(pool.map(lambda prompt: _text(client, prompt, stream=True), prompts))
    assert all(texts)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_its_place(server: Server, gateway: RunningGateway, stream: bool) -> None:
    """The engine's process works no longer, and the gateway has counted who left."""
    before = _cancelled(gateway)
    body = {"model": MODEL, "prompt": "Once upon a time", "max_tokens": 1500, "stream": stream, "ignore_eos": True}
    timeout = httpx.Timeout(10, read=1.5)
    with httpx.Client(base_url=gateway.url, timeout=timeout) as http:
        if stream:
            with http.stream("POST", "/v1/completions", json=body) as response:
                next(response.iter_bytes())
        else:
            with pytest.raises(httpx.ReadTimeout):
                http.post("/v1/completions", json=body)
    deadline = time.monotonic() + 30
    while _cancelled(gateway) == before or _works(server):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _cancelled(gateway: RunningGateway) -> int:
    return sum(1 for line in gateway.lines() if line.get("cancelled"))


def _works(server: Server) -> bool:
    """Return whether the engine still works: its process takes processor time."""
    import psutil

    process = psutil.Process(server.pid)
    tree = [process, *process.children(recursive=True)]
    before = sum(sum(child.cpu_times()[:2]) for child in tree)
    time.sleep(0.3)
    return sum(sum(child.cpu_times()[:2]) for child in tree) - before > 0.15


def test_probes_written_for_triton_work(gateway: RunningGateway) -> None:
    for path in ("/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready"):
        with urllib.request.urlopen(gateway.url + path, timeout=5) as answer:
            assert answer.status == 200

"""The gateway in front of a strict token server, asked by OpenAI's own client and by plain HTTP."""

from __future__ import annotations

import json
import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx
import openai
import pytest

from tests.fakes import small_tokenizer
from tests.fakes.gateways import MODEL, RunningGateway
from tests.fakes.token_server import LOG_PROB, TokenServer

if TYPE_CHECKING:
    from collections.abc import Callable

TEXT = "🙂 the 你好 the é"


def _until(condition: Callable[[], bool], timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _complete(client: openai.OpenAI, prompt: str | list[int] | list[str] = TEXT, **fields: Any) -> Any:
    return client.completions.create(model=MODEL, prompt=prompt, **{"max_tokens": 100, **fields})


def _post(gateway: RunningGateway, path: str = "/v1/completions", **fields: Any) -> httpx.Response:
    body = {"model": MODEL, "prompt": TEXT, **fields} if path != "/predict" else fields
    return httpx.post(f"{gateway.url}{path}", json=body)


def _metric(gateway: RunningGateway, name: str) -> float:
    lines = httpx.get(f"{gateway.url}/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.split("{")[0].split(" ")[0] == name)


def test_a_chat_goes_through_the_template_and_comes_back_whole(client: openai.OpenAI, server: TokenServer) -> None:
    answer = client.chat.completions.create(
        model=MODEL,
        messages=[
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]},
        ],
    )
    assert answer.object == "chat.completion"
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].message.content == "[system]Be brief.[user]Hello"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == len(server.requests[0]["input_ids"])
    assert answer.usage.completion_tokens == answer.usage.prompt_tokens + 1
    assert answer.usage.total_tokens == answer.usage.prompt_tokens * 2 + 1
    assert server.requests[0]["temperature"] == server.requests[0]["top_p"] == [1.0]
    assert server.requests[0]["stream"] == [False]


@pytest.mark.parametrize("tokens_per_response", [1, 2, 3, 7])
@pytest.mark.parametrize("stop", [None, "好", ["e 你", "zz"], ["the é"]])
def test_a_stream_gives_the_text_of_the_whole_answer(
    client: openai.OpenAI, server: TokenServer, tokens_per_response: int, stop: Any
) -> None:
    server.tokens_per_response = tokens_per_response
    expected = TEXT
    for word in [stop] if isinstance(stop, str) else stop or []:
        expected = expected.split(word)[0]
    whole = _complete(client, stop=stop)
    chunks = list(_complete(client, stop=stop, stream=True))
    assert whole.choices[0].text == expected
    assert "".join(chunk.choices[0].text for chunk in chunks) == expected
    assert [chunk.choices[0].finish_reason for chunk in chunks][-1] == "stop"
    assert all(chunk.choices[0].finish_reason is None for chunk in chunks[:-1])


def test_a_stream_begins_with_the_role_and_ends_with_usage(client: openai.OpenAI, server: TokenServer) -> None:
    stream = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Hi"}],
        stream=True,
        stream_options={"include_usage": True},
        max_tokens=3,
    )
    chunks = list(stream)
    assert [chunk.choices[0].delta.role for chunk in chunks[:-1]] == ["assistant", None, None][: len(chunks) - 1]
    assert not any(chunk.usage for chunk in chunks[:-1])
    assert chunks[-2].choices[0].finish_reason == "length"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 3
    assert len({chunk.id for chunk in chunks}) == 1


@pytest.mark.parametrize(("num_blocks", "expected"), [(0, 0), (2, 64), (4, 99), (None, None)])
def test_usage_says_what_the_engine_had(
    client: openai.OpenAI, gateway: RunningGateway, server: TokenServer, num_blocks: int | None, expected: int | None
) -> None:
    server.num_reused_blocks = num_blocks
    before = _metric(gateway, "scalellm_prompt_tokens_cached_total")
    prompt = [50] * 100  # three pages of 32 and a bit: an engine that shares parts of pages counts four
    whole = _complete(client, prompt, max_tokens=2).usage
    *_, last = _complete(client, prompt, max_tokens=2, stream=True, stream_options={"include_usage": True})
    found = [usage.prompt_tokens_details for usage in (whole, last.usage)]
    assert [details and details.cached_tokens for details in found] == [expected] * 2
    _until(lambda: _metric(gateway, "scalellm_prompt_tokens_cached_total") - before == 2 * (expected or 0))


def test_the_wire_is_events_and_done(gateway: RunningGateway, server: TokenServer) -> None:
    answer = _post(gateway, stream=True, max_tokens=2)
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = answer.text.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    assert all(json.loads(event.removeprefix("data: "))["object"] == "text_completion" for event in events[:-2])


def test_every_choice_reaches_the_engine(client: openai.OpenAI, server: TokenServer) -> None:
    _complete(
        client, temperature=0, top_p=0.5, seed=-1, n=2, stop=["é"], max_tokens=7, logprobs=0, frequency_penalty=0.5,
        extra_body={"top_k": 5, "min_tokens": 2, "repetition_penalty": 1.5, "ignore_eos": True},
    )  # fmt: skip
    found = server.requests[0]
    assert {name: value for name, value in found.items() if name != "input_ids"} == {
        "temperature": [0.0], "top_p": [0.5], "seed": [2**64 - 1], "num_return_sequences": [2], "stream": [False],
        "stop_words": ["é".encode()], "max_tokens": [7], "return_log_probs": [True], "frequency_penalty": [0.5],
        "top_k": [5], "min_tokens": [2], "repetition_penalty": [1.5], "end_id": [-1], "exclude_input_in_output": [True],
        "return_perf_metrics": [True],
    }  # fmt: skip


@pytest.mark.parametrize("stream", [False, True])
def test_several_answers_are_kept_apart(client: openai.OpenAI, server: TokenServer, stream: bool) -> None:
    answer = _complete(client, n=3, stream=stream)
    texts = {0: "", 1: "", 2: ""}
    for part in answer if stream else [answer]:
        for choice in part.choices:
            texts[choice.index] += choice.text
    assert texts == {0: TEXT, 1: TEXT, 2: TEXT}


@pytest.mark.parametrize("stream", [False, True])
def test_log_probs_belong_to_the_shown_tokens(client: openai.OpenAI, server: TokenServer, stream: bool) -> None:
    answer = _complete(client, "abcd", logprobs=0, stop="cd", stream=stream)
    found = [part.choices[0].logprobs for part in (answer if stream else [answer])]
    assert [token for part in found for token in part.tokens] == ["a", "b"]
    assert [offset for part in found for offset in part.text_offset] == [0, 1]
    assert {value for part in found for value in part.token_logprobs} == {LOG_PROB}


def test_token_ids_are_a_prompt_too(client: openai.OpenAI, server: TokenServer) -> None:
    assert _complete(client, [5, 6, 7]).usage.prompt_tokens == 3
    assert server.requests[0]["input_ids"] == [5, 6, 7]


def test_max_tokens_is_clamped_to_what_the_engine_holds(client: openai.OpenAI, server: TokenServer) -> None:
    _complete(client, [5] * 900, max_tokens=100_000)
    client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "Hi"}])
    client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "Hi"}], max_completion_tokens=9)
    # 1152 tokens of KV cache, of which the last new token needs none; then the default; then as asked.
    assert [request["max_tokens"] for request in server.requests] == [[253], [512], [9]]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 5}, "n"),
        ({"n": 0}, "n"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"stop": "x" * 1025}, "stop"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": "1"}, "temperature"),
        ({"top_p": -0.1}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"seed": 1.5}, "seed"),
        ({"min_tokens": 50}, "min_tokens"),
        ({"presence_penalty": 1.0}, "presence_penalty"),
        ({"logit_bias": {"263": 1}}, "logit_bias"),
        ({"logprobs": 1}, "logprobs"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": {"x": 1}}, "stream_options.x"),
        ({"prompt": ["a", "b"], "stream": True}, "prompt"),
        ({"prompt": ["a", ""]}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": [5] * 1001}, "prompt"),
        ({"prompt": [100_000]}, "prompt"),
        ({"unheard_of": 1}, "unheard_of"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(
    gateway: RunningGateway, server: TokenServer, fields: dict[str, Any], param: str
) -> None:
    answer = _post(gateway, **fields)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert error["message"].startswith(param)


@pytest.mark.parametrize("logprobs", [None, 0])
def test_several_prompts_are_answered_in_order(client: openai.OpenAI, server: TokenServer, logprobs: Any) -> None:
    answer = _complete(client, ["one", "the two", "3"], n=2, logprobs=logprobs)
    assert [choice.text for choice in answer.choices] == ["one", "one", "the two", "the two", "3", "3"]
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3, 4, 5]
    lengths = [len(request["input_ids"]) for request in server.requests]
    assert len(lengths) == 3
    assert answer.usage.prompt_tokens == sum(lengths)
    assert answer.usage.completion_tokens == 2 * sum(lengths) + 6


def test_when_one_of_several_prompts_fails_all_do(gateway: RunningGateway, server: TokenServer) -> None:
    server.failure = "max_queue_size: 9 requests are waiting"
    assert _post(gateway, prompt=["a", "b"]).status_code == 503
    _until(lambda: _metric(gateway, "scalellm_num_requests_running") == 0)


@pytest.mark.parametrize("stream", [False, True])
def test_echo_puts_the_prompt_in_front(client: openai.OpenAI, server: TokenServer, stream: bool) -> None:
    prompts: tuple[str | list[int], ...] = ("ab🙂", [5, 6])
    for prompt in prompts:
        parts = _complete(client, prompt, echo=True, n=2, stream=stream)
        texts = {0: "", 1: ""}
        for choice in (choice for part in (parts if stream else [parts]) for choice in part.choices):
            texts[choice.index] += choice.text
        expected = prompt if isinstance(prompt, str) else small_tokenizer.byte_level().decode(prompt)
        assert texts == {0: expected * 2, 1: expected * 2}


def test_what_forbids_favours_or_prescribes_tokens_reaches_the_engine(
    client: openai.OpenAI, server: TokenServer
) -> None:
    schema = {"type": "object", "properties": {"a": {"default": None}}}
    formats: list[Any] = [
        {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}},
        {"type": "json_object"},
        {"type": "text"},
    ]
    for response_format in formats:
        client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "Hi"}],
            logit_bias={"5": -100, "7": 1},
            response_format=response_format,
            extra_body={"bad_words": ["é", "x"]},
        )
    first, second, third = server.requests
    assert (first["embedding_bias_ids"], first["embedding_bias_weights"]) == ([5, 7], [-100.0, 1.0])
    assert first["bad_words"] == ["é".encode(), b"x"]
    assert first["guided_decoding_guide_type"] == [b"json_schema"]
    assert json.loads(first["guided_decoding_guide"][0]) == schema
    assert (second["guided_decoding_guide_type"], "guided_decoding_guide" in second) == ([b"json"], False)
    assert "guided_decoding_guide_type" not in third


def test_an_error_in_the_middle_ends_the_stream_with_an_event(client: openai.OpenAI, server: TokenServer) -> None:
    server.breaks_after = 3
    texts: list[str] = []
    with pytest.raises(openai.APIError, match="the engine died"):
        texts.extend(chunk.choices[0].text for chunk in _complete(client, "abcdef", stream=True))
    assert "".join(texts) == "abc"


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_ends_the_generation(gateway: RunningGateway, server: TokenServer, stream: bool) -> None:
    server.is_endless, server.step_s = True, 0.01
    before = _metric(gateway, "scalellm_request_cancelled_total")
    body = json.dumps({"model": MODEL, "prompt": "abc", "max_tokens": 1000, "stream": stream})
    host, port = gateway.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall((head + body).encode())
        _until(lambda: bool(server.requests))
        if stream:
            assert connection.recv(100)
        else:
            time.sleep(0.05)
    assert server.has_left.wait(30)
    assert server.events == ["cancelled"]
    _until(lambda: _metric(gateway, "scalellm_request_cancelled_total") == before + 1)
    _until(lambda: _metric(gateway, "scalellm_num_requests_running") == 0)
    _until(lambda: gateway.lines()[-1].get("cancelled") is True)


def test_a_gateway_interrupts_nobody_at_work(gateway: RunningGateway) -> None:
    assert os.sched_getscheduler(gateway.pid) == os.SCHED_BATCH


def test_a_request_that_ended_is_not_cancelled(client: openai.OpenAI, server: TokenServer) -> None:
    for _ in range(20):
        _complete(client, "abc", stream=True).response.read()
    _until(lambda: len(server.events) == 20)
    assert set(server.events) == {"done"}


def test_requests_share_the_connections(client: openai.OpenAI, server: TokenServer, gateway: RunningGateway) -> None:
    prompts = [f"number {index} the" for index in range(32)]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda prompt: _complete(client, prompt).choices[0].text, prompts))
    assert answers == prompts
    assert _metric(gateway, "scalellm_grpc_pool_connections") == 4


def test_models_are_listed(client: openai.OpenAI) -> None:
    (model,) = client.models.list().data
    assert (model.id, model.object, model.owned_by) == (MODEL, "model", "scalellm-trt")
    assert client.models.retrieve(MODEL) == model
    with pytest.raises(openai.NotFoundError, match="models here: echo"):
        client.models.retrieve("other")
    with pytest.raises(openai.NotFoundError):
        client.completions.create(model="other", prompt="x")


def test_predict_is_scalellms_own(gateway: RunningGateway, server: TokenServer) -> None:
    assert _post(gateway, "/predict", text="Hi").json() == {"generated_text": "[user]Hi"}
    assert server.requests[0]["temperature"] == [0.0]
    assert _post(gateway, "/predict", txt="Hi").status_code == 400


def test_health_follows_the_server(gateway: RunningGateway, server: TokenServer) -> None:
    paths = ("/health/live", "/health/ready", "/health", "/v2/health/live", "/v2/health/ready")
    assert {httpx.get(gateway.url + path).status_code for path in paths} == {200}
    assert _metric(gateway, "scalellm_backend_up") == 1
    server.is_up = False
    assert [httpx.get(gateway.url + path).status_code for path in paths] == [200, 503, 503, 200, 503]
    assert _metric(gateway, "scalellm_backend_up") == 0


def test_metrics_count_what_was_served(client: openai.OpenAI, gateway: RunningGateway, server: TokenServer) -> None:
    names = [
        "scalellm_prompt_tokens_total",
        "scalellm_generation_tokens_total",
        "scalellm_request_success_total",
        "scalellm_time_to_first_token_seconds_count",
        "scalellm_time_per_output_token_seconds_count",
        "scalellm_e2e_request_latency_seconds_count",
    ]
    before = [_metric(gateway, name) for name in names]
    _complete(client, [5, 6, 7], stream=True).response.read()
    _complete(client, [5, 6, 7])
    after = [_metric(gateway, name) for name in names]
    assert [new - old for new, old in zip(after, before, strict=True)] == [6, 8, 2, 1, 1, 2]


def test_a_request_is_a_line_in_the_log_under_its_id(gateway: RunningGateway, server: TokenServer) -> None:
    headers = {"x-request-id": "mine-1", "x-correlation-id": "c-2"}
    body = {"model": MODEL, "prompt": "abc", "user": "u-3", "metadata": {"a": "b"}}
    answer = httpx.post(f"{gateway.url}/v1/completions", json=body, headers=headers)
    assert answer.headers["x-request-id"] == "mine-1"
    _until(lambda: gateway.lines()[-1].get("request_id") == "mine-1")
    line = gateway.lines()[-1]
    assert {"status": 200, "correlation_id": "c-2", "user": "u-3", "metadata": {"a": "b"}}.items() <= line.items()
    assert (line["prompt_tokens"], line["completion_tokens"], line["finish_reasons"]) == (3, 4, ["stop"])
    assert _post(gateway).headers["x-request-id"] != _post(gateway).headers["x-request-id"]

"""A gateway with tenants as its clients meet it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from scalellm_trt.gateway import api_keys
from scalellm_trt.gateway.tenants import ledger_files
from scalellm_trt.gateway.tenants.ledger_files import Used
from tests.fakes.gateways import MODEL, RunningGateway, running, write_repository

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.fakes.token_server import TokenServer

pytestmark = pytest.mark.integration  # they start processes and wait for them

TENANTS = """\
  few: {requests_per_minute: 2}
  tokens: {tokens_per_minute: 60}
  one: {max_concurrent: 1}
  other: {models: [another]}
  free: {}
"""
NAMES = ("few", "tokens", "one", "other", "free", "stranger")


@contextlib.contextmanager
def _gateway(directory: Path, url: str, more: str = "", exit_code: int = 0) -> Iterator[RunningGateway]:
    api_keys.write(directory / "keys", {name: api_keys.digest(f"sk-{name}") for name in NAMES})
    config = directory / "gateway.yaml"
    config.write_text(f"keys: {{file: keys}}\nledger: {{directory: usage}}\n{more}tenants:\n{TENANTS}")
    repository = write_repository(directory / "repository")
    with running(repository, url, directory / "log", "--config", str(config), exit_code=exit_code) as gateway:
        yield gateway


@pytest.fixture
def gateway(tmp_path: Path, server: TokenServer) -> Iterator[RunningGateway]:
    with _gateway(tmp_path, server.url) as gateway:
        yield gateway


def _ask(gateway: RunningGateway, tenant: str, **fields: Any) -> httpx.Response:
    headers = {"authorization": f"Bearer sk-{tenant}"}
    body = {"model": MODEL, "prompt": "abc", "max_tokens": 8, **fields}
    return httpx.post(f"{gateway.url}/v1/completions", json=body, headers=headers, timeout=20)


def _used(gateway: RunningGateway) -> dict[tuple[str, str], Used]:
    directory = gateway.log.parent / "usage"
    return ledger_files.add_up(ledger_files.hours(directory).values()).used


def _metric(gateway: RunningGateway, start: str) -> float:
    lines = httpx.get(f"{gateway.url}/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(start))


@pytest.mark.parametrize("stream", [False, True])
def test_a_limited_tenant_is_told_what_is_left_and_then_to_wait(gateway: RunningGateway, stream: bool) -> None:
    answers = [_ask(gateway, "few", stream=stream) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert [answer.headers["x-ratelimit-remaining-requests"] for answer in answers] == ["1", "0", "0"]
    assert {answer.headers["x-ratelimit-limit-requests"] for answer in answers} == {"2"}
    assert 0 < float(answers[0].headers["x-ratelimit-reset-requests"].removesuffix("s")) <= 30
    assert 0 < int(answers[2].headers["retry-after"]) <= 30
    error = answers[2].json()["error"]
    assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
    assert error["message"].startswith("this tenant has 2 requests a minute; try again in ")
    assert _metric(gateway, 'scalellm_tenant_requests_refused_total{reason="requests",tenant="few"}') == 1
    assert _used(gateway)["few", MODEL].requests == 2


def test_tokens_are_reserved_and_settled(gateway: RunningGateway) -> None:
    # 3 of the prompt and 47 of the answer are reserved; 3 and 4 are used.
    first = _ask(gateway, "tokens", max_tokens=47)
    assert first.json()["usage"]["total_tokens"] == 7
    assert first.headers["x-ratelimit-remaining-tokens"] == "10"
    second = _ask(gateway, "tokens", max_tokens=47)
    assert second.status_code == 200
    assert int(second.headers["x-ratelimit-remaining-tokens"]) in (3, 4)
    large = _ask(gateway, "tokens", max_tokens=100)
    assert (large.status_code, large.json()["error"]["code"]) == (429, "request_too_large")
    assert large.headers["x-should-retry"] == "false"
    assert "retry-after" not in large.headers


def test_a_model_that_is_not_allowed_is_not_there(gateway: RunningGateway) -> None:
    answer = _ask(gateway, "other")
    assert answer.status_code == 403
    error = answer.json()["error"]
    assert (error["type"], error["code"], error["param"]) == ("permission_error", "model_not_allowed", "model")
    headers = {"authorization": "Bearer sk-other"}
    assert httpx.get(f"{gateway.url}/v1/models", headers=headers).json()["data"] == []
    assert httpx.get(f"{gateway.url}/v1/models/{MODEL}", headers=headers).status_code == 403
    headers = {"authorization": "Bearer sk-free"}
    assert len(httpx.get(f"{gateway.url}/v1/models", headers=headers).json()["data"]) == 1


def test_a_wrong_key_is_no_tenant(gateway: RunningGateway) -> None:
    assert _ask(gateway, "nobody").status_code == 401


def test_requests_at_once_are_limited_and_a_client_that_leaves_gives_its_place_back(
    gateway: RunningGateway, server: TokenServer
) -> None:
    server.step_s, server.is_endless = 0.02, True
    headers = {"authorization": "Bearer sk-one"}
    body = {"model": MODEL, "prompt": "abc", "max_tokens": 900, "stream": True}
    with httpx.stream("POST", f"{gateway.url}/v1/completions", json=body, headers=headers) as answer:
        lines = answer.iter_lines()
        next(lines)
        refused = _ask(gateway, "one")
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert "1 requests at once" in refused.json()["error"]["message"]
    server.is_endless, server.step_s = False, 0.0
    deadline = time.monotonic() + 10
    while (answer := _ask(gateway, "one")).status_code == 429:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert answer.status_code == 200
    used = _used(gateway)["one", MODEL]
    assert (used.requests, used.prompt_tokens) == (2, 6)
    assert used.completion_tokens > 4, "what a client got before it left is counted too"


def test_the_ledger_has_every_kind_of_answer_and_who_has_no_section_is_default(
    gateway: RunningGateway, server: TokenServer
) -> None:
    server.num_reused_blocks = 0
    usages = [_ask(gateway, "free").json()["usage"], _ask(gateway, "free", prompt=["ab", "abcd"]).json()["usage"]]
    stream = _ask(gateway, "free", stream=True, stream_options={"include_usage": True}).text
    usages.append(json.loads(stream.split("data: ")[-2])["usage"])
    used = _used(gateway)["free", MODEL]
    assert used.requests == 3
    assert used.prompt_tokens == sum(usage["prompt_tokens"] for usage in usages)
    assert used.completion_tokens == sum(usage["completion_tokens"] for usage in usages)
    _ask(gateway, "stranger")
    assert _used(gateway)["default", MODEL].requests == 1
    kinds = {
        kind: _metric(gateway, f'scalellm_tenant_tokens_total{{kind="{kind}",tenant="free"}}')
        for kind in ("prompt", "completion")
    }
    assert kinds == {"prompt": used.prompt_tokens, "completion": used.completion_tokens}
    assert _metric(gateway, 'scalellm_tenant_queue_time_seconds_count{tenant="free"}') == 4
    assert {
        line.get("tenant")
        for line in gateway.lines()
        if line["message"] == "request" and line["path"] == "/v1/completions"
    } == {"free", "default"}


def test_an_error_in_mid_stream_is_on_record_before_it_is_told(gateway: RunningGateway, server: TokenServer) -> None:
    server.breaks_after = 2
    assert "the engine died" in _ask(gateway, "free", stream=True).text
    assert _used(gateway)["free", MODEL] == Used(requests=1, prompt_tokens=3, completion_tokens=2)


def test_a_restart_refills_no_limit_not_even_after_a_kill(tmp_path: Path, server: TokenServer) -> None:
    began_s = time.monotonic()
    with _gateway(tmp_path, server.url, exit_code=-signal.SIGKILL) as gateway:
        assert _ask(gateway, "tokens", max_tokens=47).json()["usage"]["total_tokens"] == 7
        assert [_ask(gateway, "tokens", max_tokens=10).status_code for _ in range(6)] == [200] * 6
        os.kill(gateway.pid, signal.SIGKILL)
    with _gateway(tmp_path, server.url) as gateway:
        answer = _ask(gateway, "tokens", max_tokens=1)
    # 49 tokens are used of 60, and one comes each second.
    most = 60 - 49 + (time.monotonic() - began_s)
    remaining = answer.headers["x-ratelimit-remaining-tokens"]
    assert int(remaining) <= most - 4


def test_a_model_that_nobody_offers_is_said_at_the_start(gateway: RunningGateway) -> None:
    (line,) = [line for line in gateway.lines() if line["message"] == "a tenant may ask for models that are not there"]
    assert (line["key"], line["unknown"], line["offered"]) == ("tenants.other.models", ["another"], [MODEL])


def test_a_request_that_is_refused_costs_nothing(gateway: RunningGateway, server: TokenServer) -> None:
    assert _ask(gateway, "free", n=99).status_code == 400
    assert _ask(gateway, "few", n=99).headers["x-ratelimit-remaining-requests"] == "1"
    assert _used(gateway) == {}


def test_without_tenants_there_are_no_headers_and_a_ledger_may_be_kept(tmp_path: Path, server: TokenServer) -> None:
    config = tmp_path / "gateway.yaml"
    config.write_text("ledger: {directory: usage}\n")
    options = ("--config", str(config))
    with running(write_repository(tmp_path / "r"), server.url, tmp_path / "log", *options) as gateway:
        answer = httpx.post(f"{gateway.url}/v1/completions", json={"model": MODEL, "prompt": "abc"})
        assert answer.status_code == 200
        assert not [name for name in answer.headers if name.startswith("x-ratelimit")]
        assert _used(gateway)["default", MODEL].requests == 1

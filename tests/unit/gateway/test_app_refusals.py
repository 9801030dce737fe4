"""What the gateway refuses, and what a refusal of model or server becomes: OpenAI's shape, the right status."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.fakes.gateways import MODEL, RunningGateway, running, write_repository

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fakes.token_server import TokenServer


def _post(gateway: RunningGateway, **fields: Any) -> httpx.Response:
    return httpx.post(f"{gateway.url}/v1/completions", json={"model": MODEL, "prompt": "the é", **fields})


@pytest.mark.parametrize(
    ("refusal", "param"),
    [
        ("embedding_bias_ids: the engine cannot", "logit_bias"),
        ("guided_decoding_guide_type: is not available", "response_format"),
        ("bad_words: the engine cannot", "bad_words"),
        ("num_return_sequences: at most 4", "n"),
    ],
)
def test_a_refusal_of_the_model_names_openais_field(
    gateway: RunningGateway, server: TokenServer, refusal: str, param: str
) -> None:
    server.failure = refusal
    answer = _post(gateway)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        ("max_queue_size: 9 requests are waiting", 503),
        ("return_log_probs: this engine has none", 400),
        ("Stub process is not healthy", 500),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_refusal_of_the_model_has_its_status(
    gateway: RunningGateway, server: TokenServer, failure: str, status: int, stream: bool
) -> None:
    server.failure = failure
    answer = _post(gateway, stream=stream)
    assert answer.status_code == status
    assert answer.json()["error"]["param"] == ("logprobs" if status == 400 else None)
    assert answer.headers.get("retry-after") == ("1" if status == 503 else None)


def test_a_status_of_the_server_has_its_status(gateway: RunningGateway, server: TokenServer) -> None:
    import grpc

    expected = {"UNAVAILABLE": 503, "INVALID_ARGUMENT": 400, "RESOURCE_EXHAUSTED": 429, "NOT_FOUND": 503}
    for name, status in {**expected, "INTERNAL": 500}.items():
        server.status = grpc.StatusCode[name]
        assert _post(gateway).status_code == status


def test_bad_bodies_and_routes_have_openais_shape(gateway: RunningGateway) -> None:
    path = f"{gateway.url}/v1/completions"
    bodies = (
        b"", b"{", b"[]", b"null", b"\xff", b'{"model": NaN}', b'{"model": "echo", "prompt": "\\ud800"}',
        b'{"model": "echo", "prompt": ' + b"[" * 100_000, b'{"model": "echo", "prompt": "x", "temperature": 1e999}',
        b'{"model": "echo", "prompt": ' + b"[" * 900 + b"]" * 900 + b"}", b'{"model": "echo", "prompt": {"a": 1}}',
        b'{"model": "echo", "prompt": "x", "seed": 123456789012345678901234567890}', b'\xef\xbb\xbf{"model": "echo"}',
        b'{"model": ["echo"], "prompt": "x"}', b'{"prompt": "x"}',
    )  # fmt: skip
    for content in bodies:
        answer = httpx.post(path, content=content)
        assert answer.status_code == 400, content[:80]
        assert answer.json()["error"]["type"] == "invalid_request_error"
    wrong = httpx.get(path)
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
    assert wrong.json()["error"]["type"] == "invalid_request_error"
    assert httpx.get(f"{gateway.url}/v1/nothing").json()["error"]["type"] == "not_found_error"


def test_a_body_that_says_it_is_no_json_is_refused(gateway: RunningGateway, server: TokenServer) -> None:
    body = json.dumps({"model": MODEL, "prompt": "x"})
    kinds = {
        "application/json; charset=utf-8": 200, "Application/JSON": 200, "application/x-www-form-urlencoded": 200,
        "application/merge-patch+json": 200, "text/plain": 415, "multipart/form-data; boundary=x": 415, "x": 415,
    }  # fmt: skip
    for kind, status in kinds.items():
        answer = httpx.post(f"{gateway.url}/v1/completions", content=body, headers={"content-type": kind})
        assert answer.status_code == status, kind
    compressed = httpx.post(f"{gateway.url}/predict", content=body, headers={"content-encoding": "gzip"})
    assert compressed.status_code == 415
    assert compressed.json()["error"]["code"] == "unsupported_content_encoding"


def test_key_and_limits_keep_out(server: TokenServer, tmp_path: Path) -> None:
    options = ("--api-key", "s3cret", "--max-body-bytes", "200", "--max-prompt-tokens", "5")
    repository = write_repository(tmp_path / "repository", template=None)
    with running(repository, server.url, tmp_path / "log", *options) as gateway:
        for header in ({}, {"authorization": "Bearer s3cre"}, {"authorization": "Basic s3cret"}):
            for path in ("/v1/models", "/predict"):
                answer = httpx.get(gateway.url + path, headers=header)
                assert answer.status_code == 401
                assert answer.json()["error"]["type"] == "authentication_error"
        assert httpx.get(f"{gateway.url}/health/ready").status_code == 200
        client = httpx.Client(base_url=gateway.url, headers={"authorization": "Bearer s3cret"})
        with client:
            assert client.get("/v1/models").status_code == 200
            assert client.post("/v1/completions", content=b" " * 201).status_code == 413
            long = client.post("/v1/completions", json={"model": MODEL, "prompt": [5] * 6})
            assert long.json()["error"]["code"] == "context_length_exceeded"
            chat = {"model": MODEL, "messages": [{"role": "user", "content": "x"}]}
            assert "no chat template" in client.post("/v1/chat/completions", json=chat).json()["error"]["message"]
            assert client.post("/predict", json={"text": "abc"}).json() == {"generated_text": "abc"}


def test_a_server_that_is_not_there_is_503(tmp_path: Path) -> None:
    with running(write_repository(tmp_path / "repository"), "127.0.0.1:9", tmp_path / "log") as gateway:
        answer = _post(gateway)
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "upstream_unavailable"
        assert httpx.get(f"{gateway.url}/health/ready").status_code == 503

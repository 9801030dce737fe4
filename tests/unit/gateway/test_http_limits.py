"""What a client that behaves badly is told, and that it is not kept."""

from __future__ import annotations

import json
import select
import socket
import time
from contextlib import closing
from typing import TYPE_CHECKING

import httpx
import psutil
import pytest

from scalellm_trt.gateway import api_keys
from tests.fakes.gateways import MODEL, RunningGateway, running, write_repository

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fakes.token_server import TokenServer

LIMITS = """\
limits:
  max_body_bytes: 2000
  max_header_bytes: 1000
  header_timeout_s: 0.3
  body_timeout_s: 0.3
  write_timeout_s: 0.5
  idle_timeout_s: 1
  max_connections: 20
  max_streams: 1
  max_queue_size: 1
  queue_timeout_s: 0.3
"""
POST = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer good\r\n"


@pytest.fixture(scope="module")
def gateway(one_server: TokenServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    directory = tmp_path_factory.mktemp("limits")
    api_keys.write(directory / "keys", {"alice": api_keys.digest("good")})
    (directory / "gateway.yaml").write_text(LIMITS + "keys:\n  file: keys\nlog:\n  level: debug\n")
    repository = write_repository(directory / "repository", max_seq_len=2_000_000, kv_cache_tokens=1_024_000)
    options = ("--config", str(directory / "gateway.yaml"))
    with running(repository, one_server.url, directory / "log", *options) as gateway:
        yield gateway
        # Whatever the clients did: nothing of them is left.
        deadline = time.monotonic() + 10
        while len(psutil.Process(gateway.pid).net_connections("tcp")) > 2 + 4:  # listeners, and the server's
            assert time.monotonic() < deadline
            time.sleep(0.05)


def _connect(gateway: RunningGateway) -> socket.socket:
    host, port = gateway.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=30)


def _talk(gateway: RunningGateway, *parts: bytes, pause_s: float = 0.0) -> tuple[int | None, dict[str, object], float]:
    """Send the parts; return status and body of the answer, and the seconds until the gateway hung up."""
    started = time.monotonic()
    with closing(_connect(gateway)) as client:
        received = b""
        try:
            for part in parts:
                client.sendall(part)
                # As a client does that listens while it sends; what comes after the end would only reset it.
                if select.select([client], [], [], pause_s)[0]:
                    break
            while piece := client.recv(65536):
                received += piece
        except (BrokenPipeError, ConnectionResetError):
            pass
    head, _, body = received.partition(b"\r\n\r\n")
    status = int(head.split()[1]) if head else None
    return status, json.loads(body) if body else {}, time.monotonic() - started


def _message(body: dict[str, object]) -> str:
    error = body["error"]
    assert isinstance(error, dict)
    return str(error["message"])


def _body(**fields: object) -> bytes:
    return json.dumps({"model": MODEL, "prompt": "abc", **fields}).encode()


def _request(body: bytes) -> bytes:
    return POST + b"Content-Length: %d\r\n\r\n" % len(body) + body


@pytest.mark.parametrize("first", [b"\r\n", b"GET /health HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nA: b"])
def test_headers_that_drip_are_not_waited_for(gateway: RunningGateway, first: bytes) -> None:
    drips = [b"\r\n"] * 6 if first == b"\r\n" else [b"X-a: b\r\n"] * 6
    status, body, _ = _talk(gateway, first, *drips, pause_s=0.08)
    assert status == 408
    assert "headers did not come within 0.3 s" in _message(body)


@pytest.mark.integration  # it has to wait
def test_a_silent_connection_is_closed(gateway: RunningGateway) -> None:
    status, _, seconds = _talk(gateway)
    assert status is None
    assert seconds > 0.5


@pytest.mark.parametrize("head", [b"X-A: " + b"a" * 2000, b"X-A: b\r\n" * 200, b"X-A: b\r\n" * 130 + b"\r\n"])
def test_long_headers_are_431(gateway: RunningGateway, head: bytes) -> None:
    status, body, _ = _talk(gateway, b"GET /health HTTP/1.1\r\n" + head)
    assert status == 431
    assert _message(body) == "the headers are longer than 1000 bytes"


def test_a_long_body_in_one_piece_with_its_headers_is_no_long_header(gateway: RunningGateway) -> None:
    body = _body(prompt="x" * 500)
    status, _, _ = _talk(gateway, _request(body).replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
    assert status == 200


@pytest.mark.integration  # it has to wait
def test_a_huge_body_is_413_and_not_kept(gateway: RunningGateway) -> None:
    before = psutil.Process(gateway.pid).memory_info().rss
    huge = b"x" * 2**20
    _, body, _ = _talk(gateway, POST + b"Content-Length: %d\r\n\r\n" % 2**40, *[huge] * 64)
    assert "longer than 2000 bytes" in _message(body)
    assert psutil.Process(gateway.pid).memory_info().rss - before < 4 * 2**20


def test_a_body_that_drips_is_408(gateway: RunningGateway) -> None:
    with closing(_connect(gateway)) as client:
        client.sendall(POST + b"Content-Length: 1000\r\n\r\n{")
        answer = client.recv(65536)
        assert answer.startswith(b"HTTP/1.1 408")


def test_what_is_no_http_is_400(gateway: RunningGateway) -> None:
    status, body, _ = _talk(gateway, b"\x16\x03\x01 hello\r\n\r\n")
    assert status == 400
    assert _message(body) == "this is not an HTTP/1.1 request"


def test_a_wrong_key_is_401_and_a_right_one_is_named_in_the_log(gateway: RunningGateway, server: TokenServer) -> None:
    url = f"{gateway.url}/v1/completions"
    given = {"key-none": "", "key-bad": "Bearer bad", "key-good": "Bearer good"}
    statuses = [
        httpx.post(url, content=_body(), headers={"authorization": value, "x-request-id": name}).status_code
        for name, value in given.items()
    ]
    assert statuses == [401, 401, 200]
    deadline = time.monotonic() + 30
    names: dict[object, object] = {}
    while len(names) < len(given):  # a line is written after its answer
        assert time.monotonic() < deadline
        names = {
            line["request_id"]: line.get("key_name") for line in gateway.lines() if line.get("request_id") in given
        }
        time.sleep(0.01)
    assert names == {"key-none": None, "key-bad": None, "key-good": "alice"}
    text = gateway.log.read_text()
    assert "Bearer good" not in text
    assert "Bearer bad" not in text


def test_probes_need_no_key_and_metadata_does(gateway: RunningGateway, server: TokenServer) -> None:
    paths = ("/health/ready", "/v2/health/live", "/v2/models/none/ready", "/v2", "/v2/models/none", "/v1/models")
    assert [httpx.get(gateway.url + path).status_code for path in paths] == [200, 200, 400, 401, 401, 401]


def test_a_queue_has_an_end_and_a_time(gateway: RunningGateway, server: TokenServer) -> None:
    server.is_endless, server.step_s = True, 0.05
    with closing(_connect(gateway)) as running_one, closing(_connect(gateway)) as waiting_one:
        running_one.sendall(_request(_body(max_tokens=1000, stream=True)))
        assert running_one.recv(100)
        waiting_one.sendall(_request(_body(max_tokens=1000, stream=True)))
        _until_waiting(gateway, 1)
        status, body, _ = _talk(gateway, _request(_body()).replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
        assert (status, body["error"]["code"]) == (429, "queue_full")  # type: ignore[index]
        answer = b""
        while b"queue_timeout" not in answer:
            piece = waiting_one.recv(65536)
            assert piece, answer
            answer += piece
        assert answer.startswith(b"HTTP/1.1 503")
        assert b"retry-after: 1" in answer
    _until_waiting(gateway, 0)
    headers = {"authorization": "Bearer good"}
    server.is_endless, server.step_s = False, 0.0
    assert httpx.post(f"{gateway.url}/v1/completions", content=_body(), headers=headers).status_code == 200


def _until_waiting(gateway: RunningGateway, number: int) -> None:
    deadline = time.monotonic() + 30
    while f'scalellm_num_requests_waiting{{model_name="{MODEL}"}} {number}.0' not in _metrics(gateway):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _metrics(gateway: RunningGateway) -> str:
    return httpx.get(f"{gateway.url}/metrics").text


@pytest.mark.integration  # it has to wait
def test_a_reader_that_stops_is_cut_off_and_its_generation_ended(gateway: RunningGateway, server: TokenServer) -> None:
    server.is_endless, server.tokens_per_response = True, 50
    with closing(_connect(gateway)) as client:
        client.sendall(_request(_body(max_tokens=1_000_000, stream=True, logprobs=0)))
        assert client.recv(100)
        assert server.has_left.wait(5)
        assert server.events == ["cancelled"]


def test_one_connection_too_many_is_503(gateway: RunningGateway) -> None:
    clients = [_connect(gateway) for _ in range(20)]
    try:
        time.sleep(0.05)
        status, body, _ = _talk(gateway)
        assert status == 503
        assert "20 connections are open" in _message(body)
    finally:
        for client in clients:
            client.close()

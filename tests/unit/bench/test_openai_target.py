from __future__ import annotations

import asyncio
import dataclasses
import socket
import ssl
import threading
from typing import TYPE_CHECKING

import pytest
import uvloop

from scalellm_trt.bench.question import Question
from scalellm_trt.bench.targets import openai
from scalellm_trt.bench.targets.http_client import HttpClient
from scalellm_trt.bench.targets.target import Way
from tests.fakes import bad_server
from tests.fakes.certificates import Authority

if TYPE_CHECKING:
    from pathlib import Path

    from scalellm_trt.bench.targets.raw import Answer, Raw
    from tests.fakes.bad_server import Behaviour

QUESTION = Question(messages=(("user", "hello"),), text="hello", ids=(1, 2), max_tokens=3)
LONG_S, SHORT_S = 30.0, 0.3


def ask(url: str, *, timeout_s: float = LONG_S, times: int = 1, ca_file: Path | None = None) -> list[Answer]:
    async def all_of_them() -> list[Answer]:
        way = Way(name="t", kind="openai", url=url, model="x", ca_file=ca_file)
        asker = openai.OpenAiAsker(way, HttpClient(url, ca_file))
        answers = [openai.read(await asker.ask(QUESTION, "id", timeout_s)) for _ in range(times)]
        await asker.close()
        return answers

    return uvloop.run(all_of_them())


def test_an_answer_in_parts_is_read_with_the_time_of_each_part_and_the_servers_own_counts() -> None:
    with bad_server.running("good") as server:
        first, second = ask(server.url, times=2)
    assert [piece.text for piece in first.pieces] == ["ab", "c"]
    assert first.pieces[0].at_s <= first.pieces[1].at_s <= second.pieces[0].at_s
    assert (first.server_isl, first.server_osl, first.cached_tokens) == (5, 3, 2)
    assert (first.finish_reason, first.error) == ("length", None)
    assert server.num_connections == 1
    assert server.requests[0]["stream_options"] == {"include_usage": True}
    assert (server.requests[0]["max_tokens"], server.requests[0]["min_tokens"]) == (3, 3)


def test_a_server_that_closes_each_connection_costs_no_request() -> None:
    with bad_server.running("closes_after_each") as server:
        answers = ask(server.url, times=3)
    assert [answer.error for answer in answers] == [None] * 3


@pytest.mark.parametrize(
    ("behaviour", "error", "text"),
    [
        ("not_found", "not_found", "HTTP 404: no such page"),
        ("wrong_model", "wrong_model", "does not exist"),
        ("server_error", "server_error", "HTTP 500: it broke"),
        ("rate_limited", "rate_limited", "slow down"),
        ("unauthorized", "unauthorized", "who are you"),
        ("bad_request", "bad_request", "too hot"),
        ("redirects", "garbage", "HTTP 302"),
        ("garbage", "garbage", "not HTTP"),
        ("garbage_events", "garbage", "cannot be read"),
        ("error_event", "server_error", "out of memory"),
        ("closes", "connection_lost", "before an answer"),
        ("closes_in_the_middle", "connection_lost", "in the middle"),
    ],
)
def test_each_kind_of_failure_has_its_class(behaviour: Behaviour, error: str, text: str) -> None:
    with bad_server.running(behaviour) as server:
        (answer,) = ask(server.url)
    assert answer.error == error
    assert text in (answer.error_text or "")


@pytest.mark.parametrize(("behaviour", "num_pieces"), [("hangs", 0), ("hangs_in_the_middle", 1)])
def test_a_server_that_hangs_is_left_at_the_timeout_and_what_came_before_is_kept(
    behaviour: Behaviour, num_pieces: int
) -> None:
    with bad_server.running(behaviour) as server:
        (answer,) = ask(server.url, timeout_s=SHORT_S)
    assert answer.error == "timeout"
    assert len(answer.pieces) == num_pieces


def test_nobody_listening_and_an_unknown_name_are_refused() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        (nobody,) = ask(f"http://127.0.0.1:{unused.getsockname()[1]}")
    (unknown,) = ask("http://no-such-host.invalid:1")
    assert (nobody.error, unknown.error) == ("refused", "refused")


def test_a_certificate_that_nobody_vouches_for_and_a_server_without_tls_are_tls_errors(tmp_path: Path) -> None:
    pair = Authority(tmp_path).pair("server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_greet, args=(listener, context), daemon=True).start()
        (untrusted,) = ask(f"https://127.0.0.1:{listener.getsockname()[1]}")
    with bad_server.running("good") as server:
        (plain,) = ask(server.url.replace("http:", "https:"))
    assert untrusted.error == "tls"
    assert "certificate" in (untrusted.error_text or "")
    assert plain.error == "tls"


def test_an_answer_as_a_whole_is_one_piece_at_its_end() -> None:
    with bad_server.running("whole") as server:
        way = Way(name="t", kind="openai", url=server.url, model="x", streams=False)

        async def once() -> Raw:
            asker = openai.OpenAiAsker(way, HttpClient(server.url))
            raw = await asker.ask(QUESTION, "id", LONG_S)
            await asker.close()
            return raw

        raw = uvloop.run(once())
    answer = openai.read(raw)
    assert [(piece.text, piece.at_s) for piece in answer.pieces] == [("abc", raw.end_s)]
    assert answer.server_osl == 3


def test_giving_up_ends_what_is_waited_for_as_cancelled() -> None:
    async def give_up_in_the_middle(url: str) -> Raw:
        client = HttpClient(url)
        asked = asyncio.ensure_future(client.exchange(b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}", LONG_S))
        while not server.requests:
            await asyncio.sleep(0.01)
        client.give_up()
        raw = await asked
        await asyncio.sleep(0)
        return raw

    with bad_server.running("hangs") as server:
        raw = uvloop.run(give_up_in_the_middle(server.url))
    assert raw.was_cancelled
    assert raw.error is None
    assert raw.end_s > raw.sent_s


def test_the_key_comes_from_the_environment_and_only_where_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "secret")
    way = Way(name="t", kind="openai", url="http://127.0.0.1:1/api/v3", model="x", api="completions")
    assert b"secret" not in openai.request(way, QUESTION, "id")
    request = openai.request(dataclasses.replace(way, key_env="SOME_KEY"), QUESTION, "id")
    assert b"Authorization: Bearer secret\r\n" in request
    assert request.startswith(b"POST /api/v3/completions HTTP/1.1\r\nHost: 127.0.0.1:1\r\n")


def _greet(listener: socket.socket, context: ssl.SSLContext) -> None:
    connection, _ = listener.accept()
    try:
        context.wrap_socket(connection, server_side=True).close()
    except OSError:
        connection.close()

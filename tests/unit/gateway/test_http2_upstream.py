"""The pool of connections against a server of a few lines over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import hpack
import pytest
from tritonclient.grpc import service_pb2

from scalellm_trt.gateway import http2_upstream
from scalellm_trt.gateway.errors import ApiError
from scalellm_trt.gateway.http2_upstream import Http2Upstream
from scalellm_trt.triton import grpc_messages
from scalellm_trt.triton import http2_frames as h2
from scalellm_trt.triton.http2_frames import FrameReader
from tests.fakes.http2_peer import Heard, go_away, message
from tests.unit.gateway.test_http2 import in_loop

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

REQUEST = service_pb2.ModelInferRequest(model_name="m")
READY = service_pb2.ServerReadyRequest()


class Server:
    """Accepts connections and keeps what they say; `answer` ends a call well."""

    def __init__(self) -> None:
        self.settings: dict[int, int] = {}
        self.is_silent = False
        self.writers: list[asyncio.StreamWriter] = []
        self.calls: list[tuple[int, int, dict[str, str]]] = []
        self.resets: list[int] = []

    async def listen(self, port: int = 0) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port)
        self.port: int = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        self._server.close()
        for writer in self.writers:
            writer.close()

    def send(self, number: int, *frames: bytes) -> None:
        self.writers[number].write(b"".join(frames))

    def answer(self, number: int, stream_id: int, payload: bytes = b"") -> None:
        headers = hpack.Encoder().encode([hpack.NeverIndexedHeaderTuple("grpc-status", "0")])
        ending = h2.frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, stream_id, headers)
        self.send(number, h2.frame(h2.DATA, 0, stream_id, payload) if payload else b"", ending)

    async def has(self, num_calls: int) -> None:
        while len(self.calls) < num_calls:
            await asyncio.sleep(0.001)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number, frames, decoder = len(self.writers), FrameReader(), hpack.Decoder()
        self.writers.append(writer)
        assert await reader.readexactly(len(h2.PREFACE)) == h2.PREFACE
        if not self.is_silent:
            writer.write(h2.settings(self.settings))
        while received := await reader.read(65_536):
            for kind, _, stream_id, payload in frames.feed(received):
                if kind == h2.HEADERS:
                    self.calls.append((number, stream_id, dict(decoder.decode(payload))))  # type: ignore[arg-type]
                elif kind == h2.RST_STREAM:
                    self.resets.append(stream_id)


@contextlib.asynccontextmanager
async def serving(num_connections: int = 1, **settings: int) -> AsyncGenerator[tuple[Server, Http2Upstream], None]:
    server = Server()
    server.settings = {getattr(h2, name): value for name, value in settings.items()}
    await server.listen()
    upstream = Http2Upstream(f"127.0.0.1:{server.port}", num_connections)
    try:
        yield server, upstream
    finally:
        await upstream.close()
        await server.close()


async def _end_of(heard: Heard) -> ApiError | None:
    while not heard.ends:
        await asyncio.sleep(0.001)
    return heard.ends[0]


@in_loop
async def test_calls_take_turns_over_lasting_connections() -> None:
    async with serving(3) as (server, upstream):
        assert upstream.num_connections() == 0
        for _ in range(9):
            await upstream.start(REQUEST, Heard(), metadata=(("traceparent", "00-1"),))
        await server.has(9)
        assert sorted((number, stream_id) for number, stream_id, _ in server.calls) == [
            (number, stream_id) for number in range(3) for stream_id in (1, 3, 5)
        ]
        assert upstream.num_connections() == 3
        head = server.calls[0][2]
        assert head[":path"] == "/inference.GRPCInferenceService/ModelStreamInfer"
        assert (head["te"], head["content-type"], head["traceparent"]) == ("trailers", "application/grpc", "00-1")
        assert head[":authority"] == f"127.0.0.1:{server.port}"


@in_loop
async def test_unary_calls_have_a_deadline() -> None:
    async with serving() as (server, upstream):
        asking = asyncio.ensure_future(upstream.unary("ServerReady", READY, 5))
        await server.has(1)
        ready = service_pb2.ServerReadyResponse(ready=True)
        server.answer(0, 1, grpc_messages.framed(ready.SerializeToString()))
        assert (await asking).ready
        empty = asyncio.ensure_future(upstream.unary("ServerReady", READY, 5))
        await server.has(2)
        server.answer(0, 3)
        with pytest.raises(ApiError, match="no answer"):
            await empty
        with pytest.raises(ApiError, match=r"within 0\.01 s"):
            await upstream.unary("ServerReady", READY, 0.01)
        while server.resets != [5]:
            await asyncio.sleep(0.001)


@in_loop
async def test_calls_beyond_the_servers_limit_wait_their_turn() -> None:
    async with serving(2, SET_MAX_CONCURRENT_STREAMS=1) as (server, upstream):
        heard = [Heard() for _ in range(6)]
        for listener in heard[:2]:
            await upstream.start(REQUEST, listener)
        starts = [asyncio.ensure_future(upstream.start(REQUEST, listener)) for listener in heard[2:]]
        await server.has(2)
        await asyncio.sleep(0.005)
        assert not any(start.done() for start in starts)
        starts[1].cancel()
        server.answer(0, 1)
        await starts[0]
        assert (len(server.calls), [start.done() for start in starts[2:]]) == (2, [False, False])
        await server.has(3)
        server.send(1, h2.settings({h2.SET_MAX_CONCURRENT_STREAMS: 9}))
        await asyncio.gather(*starts[2:])
        await server.has(5)
        assert [number for number, _, _ in server.calls] == [0, 1, 0, 1, 1]


@in_loop
async def test_those_that_wait_hear_that_the_server_is_gone() -> None:
    async with serving(1, SET_MAX_CONCURRENT_STREAMS=1) as (server, upstream):
        starts = [asyncio.ensure_future(upstream.start(REQUEST, Heard())) for _ in range(4)]
        await server.has(1)
        await server.close()
        results = await asyncio.gather(*starts, return_exceptions=True)
        assert [result.status for result in results if isinstance(result, ApiError)] == [503, 503, 503]


@in_loop
async def test_a_call_that_a_leaving_server_did_not_take_begins_anew() -> None:
    async with serving() as (server, upstream):
        taken, refused, given_up = Heard(), Heard(), Heard()
        await upstream.start(REQUEST, taken)
        await upstream.start(REQUEST, refused)
        call = await upstream.start(REQUEST, given_up)
        await server.has(3)
        given_up.then = call.cancel
        server.send(0, go_away(1))
        await server.has(5)
        assert [(number, stream_id) for number, stream_id, _ in server.calls[3:]] == [(1, 1), (1, 3)]
        server.answer(0, 1, message("old"))
        server.answer(1, 1, message("new"))
        assert await _end_of(taken) is None
        assert await _end_of(refused) is None
        assert (taken.texts, refused.texts) == (["old"], ["new"])
        call.cancel()
        while server.resets != [3]:
            await asyncio.sleep(0.001)


@in_loop
async def test_a_lost_connection_is_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = [100.0]
    monkeypatch.setattr(http2_upstream, "time", SimpleNamespace(monotonic=lambda: now_s[0]))
    async with serving() as (server, upstream):
        heard = Heard()
        await upstream.start(REQUEST, heard)
        await server.has(1)
        await server.close()
        lost = await _end_of(heard)
        assert lost is not None
        assert (lost.status, lost.code) == (503, "upstream_unavailable")
        for _ in range(3):
            with pytest.raises(ApiError, match="does not answer"):
                await upstream.start(REQUEST, heard)
        await server.listen(server.port)
        with pytest.raises(ApiError, match="does not answer"):
            await upstream.start(REQUEST, heard)
        now_s[0] += 2 * http2_upstream.FIRST_BACKOFF_S
        await upstream.start(REQUEST, heard)
        await server.has(2)


@in_loop
async def test_a_port_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http2_upstream, "CONNECT_TIMEOUT_S", 0.01)
    async with serving(2) as (server, upstream):
        server.is_silent = True
        first: Any = upstream.start(REQUEST, Heard())
        for result in await asyncio.gather(first, upstream.start(REQUEST, Heard()), return_exceptions=True):
            assert isinstance(result, ApiError)
            assert "no HTTP/2 settings" in result.message

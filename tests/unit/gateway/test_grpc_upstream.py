"""The gRPC library behind the same protocol: tokens, pause, cancel, refusals."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from tritonclient.grpc import service_pb2

from scalellm_trt.gateway import tensors, upstreams
from scalellm_trt.gateway.errors import ApiError
from scalellm_trt.gateway.grpc_upstream import GrpcUpstream
from scalellm_trt.gateway.http2_upstream import Http2Upstream
from scalellm_trt.gateway.options import GatewayOptions, ServerTls
from tests.fakes.gateways import MODEL
from tests.unit.gateway.test_http2 import in_loop

if TYPE_CHECKING:
    from tests.fakes.token_server import TokenServer


def _request(max_tokens: int) -> Any:
    return tensors.encode(
        tensors.Generation(
            model=MODEL,
            request_id="r",
            input_ids=[5, 6, 7],
            max_tokens=max_tokens,
            temperature=0.0,
            top_p=1.0,
            is_stream=True,
        )
    )


class Heard:
    def __init__(self) -> None:
        self.ids: list[int] = []
        self.error: ApiError | None = None
        self.end = asyncio.Event()
        self.some = asyncio.Event()

    def on_messages(self, messages: list[Any]) -> None:
        for message in messages:
            for chunk in tensors.decode(message.infer_response):
                self.ids += chunk.token_ids
        self.some.set()

    def on_end(self, error: ApiError | None) -> None:
        self.error = error
        self.end.set()


@in_loop
async def test_tokens_come_until_the_end(server: TokenServer) -> None:
    upstream = upstreams.make(GatewayOptions(upstream="grpc"), server.url)
    assert isinstance(upstream, GrpcUpstream)
    heard = Heard()
    await upstream.start(_request(3), heard, metadata=(("traceparent", "00-1"),))
    await heard.end.wait()
    assert (heard.ids, heard.error) == ([5, 6, 7], None)
    assert upstream.num_connections() == 1
    assert (await upstream.unary("ServerReady", service_pb2.ServerReadyRequest(), 1)).ready
    await upstream.close()


@in_loop
async def test_a_paused_call_is_read_no_further(server: TokenServer) -> None:
    server.is_endless, server.step_s = True, 0.001
    upstream, heard = GrpcUpstream(server.url, 1, None), Heard()
    call = await upstream.start(_request(100), heard)
    await heard.some.wait()
    call.pause()
    seen = len(heard.ids)
    await asyncio.sleep(0.02)
    assert len(heard.ids) <= seen
    call.resume()
    await heard.end.wait()
    assert len(heard.ids) == 100
    await upstream.close()


@in_loop
async def test_cancel_reaches_the_server(server: TokenServer) -> None:
    server.is_endless, server.step_s = True, 0.001
    upstream, heard = GrpcUpstream(server.url, 1, None), Heard()
    call = await upstream.start(_request(1000), heard)
    await heard.some.wait()
    call.cancel()
    deadline = time.monotonic() + 30
    # The end of an earlier test's call may be noted as late as now.
    while "cancelled" not in server.events:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)
    assert not heard.end.is_set()
    await upstream.close()


@in_loop
async def test_a_status_is_the_error(server: TokenServer) -> None:
    server.status = grpc.StatusCode.RESOURCE_EXHAUSTED
    upstream, heard = GrpcUpstream(server.url, 1, None), Heard()
    await upstream.start(_request(1), heard)
    await heard.end.wait()
    assert heard.error is not None
    assert heard.error.status == 429
    await upstream.close()
    gone = GrpcUpstream("127.0.0.1:9", 1, None)
    with pytest.raises(ApiError) as error:
        await gone.unary("ServerReady", service_pb2.ServerReadyRequest(), 1)
    assert error.value.status == 503
    await gone.close()


@in_loop
async def test_clear_text_is_http2_and_tls_is_the_library() -> None:
    assert isinstance(upstreams.make(GatewayOptions(), "h:1"), Http2Upstream)
    secure = upstreams.make(GatewayOptions(server_tls=ServerTls()), "h:1")
    assert isinstance(secure, GrpcUpstream)
    await secure.close()

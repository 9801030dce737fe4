"""Spans as a collector gets them: from a gateway process by OTLP, and from a provider in memory."""

from __future__ import annotations

import http.server
import threading
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from scalellm_trt.gateway import request_log
from scalellm_trt.gateway.tracing import Tracing
from tests.fakes.gateways import MODEL, running, write_repository

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.fakes.token_server import TokenServer

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
PARENT_ID = "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE_ID}-{PARENT_ID}-01"


@pytest.fixture
def memory() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracing(memory: InMemorySpanExporter) -> Tracing:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(memory))
    return Tracing(provider)


def _record(path: str = "/v1/completions") -> request_log.RequestRecord:
    return request_log.new_record("POST", path, {"x-request-id": "mine"})


def test_a_clients_trace_goes_on_to_the_server(tracing: Tracing, memory: InMemorySpanExporter) -> None:
    record = _record()
    trace = tracing.begin(record, {"traceparent": TRACEPARENT, "tracestate": "a=b"})
    metadata = dict(trace.begin_call("m"))
    trace.end_call("gpu-1:8001")
    record.status, record.prompt_tokens, record.finish_reasons = 200, 3, ["stop"]
    trace.end(record)
    call, request = memory.get_finished_spans()
    assert request.context is not None
    assert call.context is not None
    assert call.parent is not None
    assert request.parent is not None
    assert f"{request.context.trace_id:032x}" == f"{call.context.trace_id:032x}" == TRACE_ID
    assert f"{request.parent.span_id:016x}" == PARENT_ID
    assert call.parent.span_id == request.context.span_id
    assert metadata == {"traceparent": f"00-{TRACE_ID}-{call.context.span_id:016x}-01", "tracestate": "a=b"}
    assert (request.kind, call.kind) == (SpanKind.SERVER, SpanKind.CLIENT)
    assert (request.name, call.name) == ("POST /v1/completions", "inference.GRPCInferenceService/ModelStreamInfer")
    attributes = dict(request.attributes or {})
    assert attributes["gen_ai.operation.name"] == "text_completion"
    assert attributes["http.response.status_code"] == 200
    assert attributes["gen_ai.usage.input_tokens"] == 3
    assert attributes["gen_ai.response.finish_reasons"] == ("stop",)
    assert attributes["scalellm.request_id"] == "mine"
    assert "gen_ai.usage.output_tokens" not in attributes
    assert {"server.address": "gpu-1", "server.port": 8001, "rpc.system": "grpc"}.items() <= (
        call.attributes or {}
    ).items()


@pytest.mark.parametrize("headers", [{}, {"traceparent": "rubbish"}])
def test_without_a_trace_one_begins(tracing: Tracing, memory: InMemorySpanExporter, headers: dict[str, str]) -> None:
    record = _record("/v1/models")
    trace = tracing.begin(record, headers)
    record.status, record.error = 401, "a wrong key"
    trace.end(record)
    (span,) = memory.get_finished_spans()
    assert span.parent is None
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "a wrong key")
    assert "gen_ai.operation.name" not in (span.attributes or {})


class Collector(http.server.ThreadingHTTPServer):
    """Takes OTLP over HTTP."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        assert self.path == "/v1/traces"
        assert not self.headers.get("content-encoding")
        body = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["content-length"])))
        for resource in body.resource_spans:
            names = {item.key: item.value.string_value for item in resource.resource.attributes}
            assert names["service.name"] == "scalellm-gateway"
            self.server.spans += [span for scope in resource.scope_spans for span in scope.spans]
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        return


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        thread = threading.Thread(target=collector.serve_forever)
        thread.start()
        yield collector
        collector.shutdown()
        thread.join()


@pytest.mark.integration
@pytest.mark.parametrize("workers", [1, 2])
def test_a_gateway_sends_its_spans_before_it_ends(
    server: TokenServer, collector: Collector, tmp_path: Path, workers: int
) -> None:
    (tmp_path / "gateway.yaml").write_text(
        f"tracing:\n  endpoint: http://127.0.0.1:{collector.server_port}/v1/traces\n"
    )
    options = ("--config", str(tmp_path / "gateway.yaml"), "--workers", str(workers))
    with running(write_repository(tmp_path / "repository"), server.url, tmp_path / "log", *options) as gateway:
        body = {"model": MODEL, "prompt": "abc", "stream": True}
        headers = {"traceparent": TRACEPARENT}
        assert httpx.post(f"{gateway.url}/v1/completions", json=body, headers=headers).status_code == 200
        assert httpx.get(f"{gateway.url}/health/ready").status_code == 200
    assert sorted(span.name for span in collector.spans) == [
        "POST /v1/completions",
        "inference.GRPCInferenceService/ModelStreamInfer",
    ]
    assert {span.trace_id.hex() for span in collector.spans} == {TRACE_ID}
    (call,) = [span for span in collector.spans if span.kind == 3]
    assert server.metadata[0]["traceparent"] == f"00-{TRACE_ID}-{call.span_id.hex()}-01"


@pytest.mark.integration
def test_nothing_of_opentelemetry_is_passed_on_unless_asked_for(server: TokenServer, tmp_path: Path) -> None:
    with running(write_repository(tmp_path / "repository"), server.url, tmp_path / "log") as gateway:
        body = {"model": MODEL, "prompt": "abc"}
        httpx.post(f"{gateway.url}/v1/completions", json=body, headers={"traceparent": TRACEPARENT})
    assert "traceparent" not in server.metadata[0]

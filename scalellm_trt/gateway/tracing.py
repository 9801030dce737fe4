"""OpenTelemetry spans of a request, from HTTP to gRPC; only imported where they are asked for.

W3C's `traceparent` of the client is taken over, and passed on to tritonserver as gRPC metadata, where Triton's own
OpenTelemetry mode takes it up. Attributes are those of the GenAI conventions, which are still in development.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import trace
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from scalellm_trt import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scalellm_trt.gateway.request_log import RequestRecord

OPERATIONS: Final = {"/v1/chat/completions": "chat", "/v1/completions": "text_completion", "/predict": "chat"}
_PROPAGATOR: Final = TraceContextTextMapPropagator()
_CALL: Final = {
    "rpc.system": "grpc",
    "rpc.service": "inference.GRPCInferenceService",
    "rpc.method": "ModelStreamInfer",
}


class Tracing:
    """Makes the spans of one gateway."""

    def __init__(self, provider: TracerProvider) -> None:
        """Let `provider` have the spans."""
        self._provider = provider
        self._tracer = provider.get_tracer("scalellm_trt.gateway", __version__)

    def begin(self, record: RequestRecord, headers: Mapping[str, str]) -> RequestTrace:
        """Begin the span of a request; it continues the trace that its `traceparent` names."""
        attributes: dict[str, Any] = {
            "http.request.method": record.method,
            "url.path": record.path,
            "scalellm.request_id": record.request_id,
        }
        if record.path in OPERATIONS:
            attributes["gen_ai.operation.name"] = OPERATIONS[record.path]
        carrier = {name: headers[name] for name in ("traceparent", "tracestate") if name in headers}
        span = self._tracer.start_span(
            f"{record.method} {record.path}",
            context=_PROPAGATOR.extract(carrier),
            kind=trace.SpanKind.SERVER,
            attributes=attributes,
        )
        return RequestTrace(self._tracer, span)

    def close(self) -> None:
        """Send what has not been sent."""
        self._provider.shutdown()


class RequestTrace:
    """The spans of one request."""

    def __init__(self, tracer: trace.Tracer, span: trace.Span) -> None:
        """Take over the request's own span."""
        self._tracer, self._span = tracer, span
        self._call: trace.Span | None = None

    def begin_call(self, model: str) -> tuple[tuple[str, str], ...]:
        """Begin the span of the call to the server; return the metadata by which the server continues it."""
        context = trace.set_span_in_context(self._span)
        attributes = {**_CALL, "gen_ai.request.model": model}
        name = f"{_CALL['rpc.service']}/{_CALL['rpc.method']}"
        self._call = self._tracer.start_span(name, context, kind=trace.SpanKind.CLIENT, attributes=attributes)
        carrier: dict[str, str] = {}
        _PROPAGATOR.inject(carrier, trace.set_span_in_context(self._call))
        return tuple(carrier.items())

    def end_call(self, url: str | None) -> None:
        """End the span of the call, if it was begun; `url` (`host:port`) is the server that answered last."""
        if self._call is None:
            return
        if url is not None:
            host, _, port = url.rpartition(":")
            self._call.set_attributes({"server.address": host, "server.port": int(port)})
        self._call.end()

    def end(self, record: RequestRecord) -> None:
        """End the request's span with what is known of it now."""
        known = {
            "http.response.status_code": record.status,
            "gen_ai.request.model": record.model,
            "gen_ai.usage.input_tokens": record.prompt_tokens,
            "gen_ai.usage.output_tokens": record.completion_tokens,
            "gen_ai.response.finish_reasons": record.finish_reasons,
            "scalellm.cancelled": record.is_cancelled or None,
        }
        self._span.set_attributes({name: value for name, value in known.items() if value is not None})
        if record.error is not None:
            self._span.set_status(trace.StatusCode.ERROR, record.error)
        self._span.end()


def to_collector(endpoint: str) -> Tracing:
    """Return what sends spans to `endpoint` by OTLP over HTTP, in the background; OTEL_* variables hold as usual."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    name = {} if "OTEL_SERVICE_NAME" in os.environ else {SERVICE_NAME: "scalellm-gateway"}
    provider = TracerProvider(resource=Resource.create(name))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    return Tracing(provider)

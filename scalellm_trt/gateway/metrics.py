"""What Prometheus reads: the names of TensorRT-LLM's and vLLM's metrics behind our own prefix."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

# 1 ms to 2560 s, as both peers have it.
SECONDS_BUCKETS: Final = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0,
    640.0, 2560.0,
)  # fmt: skip
TOKEN_SECONDS_BUCKETS: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0,
    2.5, 5.0,
)  # fmt: skip


class Metrics:
    """The numbers of one gateway, in a registry of its own."""

    def __init__(self) -> None:
        """Begin at zero."""
        registry = self._registry = CollectorRegistry()
        model = ("model_name",)
        self.ttft = Histogram(
            "scalellm_time_to_first_token_seconds",
            "From the request to the first text of its stream.",
            model,
            buckets=SECONDS_BUCKETS,
            registry=registry,
        )
        self.tpot = Histogram(
            "scalellm_time_per_output_token_seconds",
            "(end to end - TTFT) / (tokens - 1) of a stream with one answer.",
            model,
            buckets=TOKEN_SECONDS_BUCKETS,
            registry=registry,
        )
        self.e2e = Histogram(
            "scalellm_e2e_request_latency_seconds",
            "From the request to the end of its answer.",
            model,
            buckets=SECONDS_BUCKETS,
            registry=registry,
        )
        self.prompt_tokens = Counter(
            "scalellm_prompt_tokens", "Tokens of the prompts that were sent to the engine.", model, registry=registry
        )
        self.generation_tokens = Counter(
            "scalellm_generation_tokens", "Tokens received from the engine.", model, registry=registry
        )
        self.success = Counter(
            "scalellm_request_success", "Answers that ended.", ("model_name", "finished_reason"), registry=registry
        )
        self.running = Gauge("scalellm_num_requests_running", "Requests at the engine now.", model, registry=registry)
        self.waiting = Gauge(
            "scalellm_num_requests_waiting", "Requests that wait for their turn here.", model, registry=registry
        )
        self.queue_time = Histogram(
            "scalellm_request_queue_time_seconds",
            "How long requests waited here before they were sent to the engine.",
            model,
            buckets=SECONDS_BUCKETS,
            registry=registry,
        )
        self.failures = Counter(
            "scalellm_request_failure", "Requests answered with an error, by HTTP status.", ("code",), registry=registry
        )
        self.cancelled = Counter(
            "scalellm_request_cancelled", "Requests whose client left before the end.", model, registry=registry
        )
        self.cancelled_tokens = Counter(
            "scalellm_cancelled_tokens", "Tokens received for requests whose client left.", model, registry=registry
        )
        self.backend_up = Gauge("scalellm_backend_up", "1 while the server is ready.", ("url",), registry=registry)
        self.connections = Gauge("scalellm_grpc_pool_connections", "gRPC connections that stand.", registry=registry)

    def render(self) -> bytes:
        """Return the text that Prometheus reads."""
        return generate_latest(self._registry)

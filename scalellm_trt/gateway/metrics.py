"""What Prometheus reads: the names of TensorRT-LLM's and vLLM's metrics behind our own prefix.

With several workers (PROMETHEUS_MULTIPROC_DIR) the numbers lie in files, and whoever is asked adds up those of all.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, Generic, TypeVar, cast

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from scalellm_trt.gateway.ui.window import Live

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from prometheus_client import Metric

# 1 ms to 2560 s, as both peers have it.
SECONDS_BUCKETS: Final = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0,
    640.0, 2560.0,
)  # fmt: skip
TOKEN_SECONDS_BUCKETS: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0,
    2.5, 5.0,
)  # fmt: skip


MODEL: Final = ("model_name",)
TENANT: Final = ("tenant",)
Kind = TypeVar("Kind", Counter, Gauge, Histogram)


class Labelled(Generic[Kind]):
    """A metric with labels whose children are found without prometheus_client's checks and its lock."""

    def __init__(self, metric: Kind) -> None:
        """Take a metric none of whose children is ever removed."""
        self._metric: Kind = metric
        self._children: dict[tuple[str, ...], Kind] = {}

    def labels(self, *values: str) -> Kind:
        """Return the child of these labels."""
        child = self._children.get(values)
        if child is None:
            child = self._children[values] = self._metric.labels(*values)
        return child


class Metrics:
    """The numbers of one gateway, in a registry of its own.

    Attributes:
        live: this worker's counts for the operator's page.
    """

    def __init__(self) -> None:
        """Begin at zero."""
        registry = self._registry = CollectorRegistry()
        self.live = Live()
        self._times(registry)
        self._counts(registry)
        self._present(registry)

    def _times(self, registry: CollectorRegistry) -> None:
        def seconds(
            name: str, text: str, buckets: tuple[float, ...] = SECONDS_BUCKETS, labels: tuple[str, ...] = MODEL
        ) -> Labelled[Histogram]:
            return Labelled(Histogram(f"scalellm_{name}_seconds", text, labels, buckets=buckets, registry=registry))

        self.ttft = seconds("time_to_first_token", "From the request to the first text of its stream.")
        self.tpot = seconds(
            "time_per_output_token",
            "(end to end - TTFT) / (tokens - 1) of a stream with one answer.",
            TOKEN_SECONDS_BUCKETS,
        )
        self.e2e = seconds("e2e_request_latency", "From the request to the end of its answer.")
        self.queue_time = seconds(
            "request_queue_time", "How long requests waited here before they were sent to the engine."
        )
        self.tenant_queue_time = seconds("tenant_queue_time", "The same, of each tenant.", labels=TENANT)

    def _counts(self, registry: CollectorRegistry) -> None:
        def count(name: str, text: str, labels: tuple[str, ...] = MODEL) -> Labelled[Counter]:
            return Labelled(Counter(f"scalellm_{name}", text, labels, registry=registry))

        self.prompt_tokens = count("prompt_tokens", "Tokens of the prompts that were sent to the engine.")
        self.cached_tokens = count(
            "prompt_tokens_cached", "Tokens of prompts that the engine had in its KV cache, where it says so."
        )
        self.generation_tokens = count("generation_tokens", "Tokens received from the engine.")
        self.success = count("request_success", "Answers that ended.", ("model_name", "finished_reason"))
        self.failures = count("request_failure", "Requests answered with an error, by HTTP status.", ("code",))
        self.failovers = count(
            "failover",
            "Requests of a server that broke: retried elsewhere, continued there in mid-stream, or lost.",
            ("server", "outcome"),
        )
        self.cancelled = count("request_cancelled", "Requests whose client left before the end.")
        self.cancelled_tokens = count("cancelled_tokens", "Tokens received for requests whose client left.")
        self.tenant_tokens = count(
            "tenant_tokens",
            "Tokens of each tenant's ended requests: prompt, cached (of them, where the engine says so), completion.",
            ("tenant", "kind"),
        )
        self.tenant_refused = count(
            "tenant_requests_refused",
            "Requests refused: for their model, or over the limit on requests, tokens, concurrency.",
            ("tenant", "reason"),
        )

    def _present(self, registry: CollectorRegistry) -> None:
        def now(name: str, text: str, labels: tuple[str, ...] = ()) -> Gauge:
            # Of several workers the living ones' values add up.
            return Gauge(f"scalellm_{name}", text, labels, registry=registry, multiprocess_mode="livesum")

        self.running = Labelled(now("num_requests_running", "Requests at the engine now.", MODEL))
        self.waiting = now("num_requests_waiting", "Requests that wait for their turn here.", MODEL)
        self.tasks = now("event_loop_tasks", "asyncio's tasks; what stays up when nothing runs is a leak.")
        self.connections = now("grpc_pool_connections", "gRPC connections that stand.")
        self.backend_up = Gauge(
            "scalellm_backend_up",
            "1 while the server is ready.",
            ("url",),
            registry=registry,
            multiprocess_mode="livemostrecent",
        )

    def note_failure(self, status: int) -> None:
        """Count a request that is answered with an error."""
        self.failures.labels(str(status)).inc()
        self.live.note_error(status)

    def render(self) -> bytes:
        """Return the text that Prometheus reads."""
        return generate_latest(self._everybody())

    def collect(self) -> Iterable[Metric]:
        """Return the metrics, of all workers together."""
        return self._everybody().collect()

    def _everybody(self) -> CollectorRegistry:
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return self._registry
        everybody, collect = CollectorRegistry(), cast("Callable[[CollectorRegistry], object]", MultiProcessCollector)
        collect(everybody)
        return everybody

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from scalellm_trt.gateway.metrics import Metrics
from scalellm_trt.gateway.ui import tenants
from scalellm_trt.gateway.ui.state import Tenant


def test_whatever_has_a_tenant_is_read() -> None:
    registry = CollectorRegistry()
    tokens = Counter("scalellm_tenant_tokens", "Tokens.", ("tenant", "model_name"), registry=registry)
    waiting = Gauge("scalellm_waiting_by_tenant", "Waiting.", ("tenant",), registry=registry)
    seconds = Histogram("scalellm_tenant_seconds", "Seconds.", ("tenant",), registry=registry)
    tokens.labels("acme", "a").inc(3)
    tokens.labels("acme", "b").inc(4)
    tokens.labels("zoo", "a").inc(5)
    waiting.labels("acme").set(2)
    seconds.labels("acme").observe(1)
    assert tenants.read(registry.collect()) == [
        Tenant(name="acme", values={"tokens": 7.0, "waiting_by_tenant": 2.0}),
        Tenant(name="zoo", values={"tokens": 5.0}),
    ]


def test_a_part_is_not_added_to_its_whole() -> None:
    metrics = Metrics()
    for kind, number in (("prompt", 10), ("cached", 8), ("completion", 5)):
        metrics.tenant_tokens.labels("acme", kind).inc(number)
    assert tenants.read(metrics.collect()) == [
        Tenant(name="acme", values={"tokens_prompt": 10.0, "tokens_cached": 8.0, "tokens_completion": 5.0})
    ]


def test_a_gateway_without_tenants_has_none() -> None:
    metrics = Metrics()
    metrics.running.labels("echo").inc()
    assert tenants.read(metrics.collect()) == []

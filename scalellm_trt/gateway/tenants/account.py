"""All that belongs to a tenant in one worker: its quota, its place in the queue, its counters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from scalellm_trt.gateway.errors import ApiError
from scalellm_trt.gateway.tenants.fair_queue import Flow
from scalellm_trt.gateway.tenants.tenant import PRIORITIES

if TYPE_CHECKING:
    from prometheus_client import Counter

    from scalellm_trt.gateway.metrics import Metrics
    from scalellm_trt.gateway.replies import Usage
    from scalellm_trt.gateway.tenants.fair_queue import FairQueue
    from scalellm_trt.gateway.tenants.ledger import Ledger
    from scalellm_trt.gateway.tenants.quota import Quota
    from scalellm_trt.gateway.tenants.tenant import Tenant


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """One tenant.

    Attributes:
        queue: where its requests wait among those of others.
        ledger: None keeps none.
        prompt_tokens, cached_tokens, completion_tokens: its own of the metrics.
    """

    tenant: Tenant
    quota: Quota
    flow: Flow
    queue: FairQueue
    ledger: Ledger | None
    metrics: Metrics
    prompt_tokens: Counter
    cached_tokens: Counter
    completion_tokens: Counter

    def check_model(self, model: str) -> None:
        """Return if the tenant may ask for `model`.

        Raises:
            ApiError: 403, it may not.
        """
        if not self.tenant.may_use(model):
            self.count_refused("model")
            message = f"the model {model!r} is not among those that this key may use"
            raise ApiError(403, message, param="model", code="model_not_allowed")

    def count_refused(self, reason: str) -> None:
        """Count a request that the tenant was not allowed."""
        self.metrics.tenant_refused.labels(self.tenant.name, reason).inc()

    def note(self, model: str, usage: Usage) -> None:
        """Put a request's usage on record."""
        if self.ledger is not None:
            self.ledger.note(self.tenant.name, model, usage)
        self.prompt_tokens.inc(usage.prompt_tokens)
        self.completion_tokens.inc(usage.completion_tokens)
        if usage.cached_tokens:
            self.cached_tokens.inc(usage.cached_tokens)


def open_account(tenant: Tenant, quota: Quota, queue: FairQueue, ledger: Ledger | None, metrics: Metrics) -> Account:
    """Return a tenant's account."""
    tokens = metrics.tenant_tokens
    return Account(
        tenant=tenant,
        quota=quota,
        flow=Flow(name=tenant.name, rank=PRIORITIES.index(tenant.priority), weight=tenant.weight),
        queue=queue,
        ledger=ledger,
        metrics=metrics,
        prompt_tokens=tokens.labels(tenant.name, "prompt"),
        cached_tokens=tokens.labels(tenant.name, "cached"),
        completion_tokens=tokens.labels(tenant.name, "completion"),
    )

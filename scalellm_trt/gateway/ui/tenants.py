"""Metrics in, what they say of each tenant out: whatever has a label `tenant` is read, whoever counts it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from scalellm_trt.gateway.ui.state import Tenant

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client import Metric

LABEL: Final = "tenant"
_KINDS: Final = ("counter", "gauge")
_ADDED_UP: Final = (LABEL, "model_name")
_PREFIXES: Final = ("scalellm_tenant_", "scalellm_")


def read(families: Iterable[Metric]) -> list[Tenant]:
    """Return the tenants by name; histograms are left out.

    What is counted by model is added up. Other labels are a part of the value's name, because some of what they tell
    apart is a share of the rest: `tokens_prompt` and, of those, `tokens_cached`.
    """
    found: dict[str, dict[str, float]] = {}
    for family in families:
        if family.type not in _KINDS:
            continue
        for sample in family.samples:
            if LABEL in sample.labels and not sample.name.endswith("_created"):
                values = found.setdefault(sample.labels[LABEL], {})
                kinds = [value for label, value in sample.labels.items() if label not in _ADDED_UP]
                name = "_".join([_short(sample.name), *kinds])
                values[name] = values.get(name, 0.0) + sample.value
    return [Tenant(name=name, values=found[name]) for name in sorted(found)]


def _short(name: str) -> str:
    for prefix in _PREFIXES:
        if name.startswith(prefix):
            return name.removeprefix(prefix).removesuffix("_total")
    return name.removesuffix("_total")

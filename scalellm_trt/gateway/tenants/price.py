"""What tokens cost, in whatever currency: those of prompts, cached ones too, and those of answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from scalellm_trt.gateway.tenants.ledger_files import Used
    from scalellm_trt.gateway.tenants.tenant import Tenant

MILLION = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """Of a million tokens."""

    of_input: float
    of_output: float

    @staticmethod
    def of(of_input: float | None, of_output: float | None) -> Price | None:
        """Return a price where one of both is given; the other is 0 then."""
        if of_input is None and of_output is None:
            return None
        return Price(of_input=of_input or 0.0, of_output=of_output or 0.0)

    def cost(self, used: Used) -> float:
        """Return what was used costs."""
        return (used.prompt_tokens * self.of_input + used.completion_tokens * self.of_output) / MILLION


def prices(tenants: Sequence[Tenant], of_all: Price | None) -> Mapping[str, Price | None]:
    """Return each tenant's price: its own, or that of all."""
    return {
        tenant.name: Price.of(tenant.price_per_million_input, tenant.price_per_million_output) or of_all
        for tenant in tenants
    }

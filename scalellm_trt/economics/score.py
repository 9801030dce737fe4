"""Latencies and prices in, the economic score out: pure arithmetic.

    score = num_services / (latency_s * usd_per_hour), where latency_s is within the threshold

ScaleLLM's published table follows from this formula; it names neither latencies nor prices, only their products.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scalellm_trt.economics.prices import Price


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """A score with everything that it means nothing without.

    Attributes:
        latency_s: time to first token of `prompt_tokens`, all services loaded at once.
        num_cards: cards that the services take together; the price is of one.
        threshold_s: of the recipe's `slo.ttft_ms`; None where it is not judged.
    """

    num_services: int
    latency_s: float
    prompt_tokens: int
    num_cards: int
    price: Price
    threshold_s: float | None

    @property
    def usd_per_hour(self) -> float:
        """What all cards cost."""
        return self.num_cards * self.price.usd_per_hour

    @property
    def meets_threshold(self) -> bool:
        """Whether the latency counts at all."""
        return self.threshold_s is None or self.latency_s <= self.threshold_s

    @property
    def value(self) -> float:
        """Services per second of latency and dollar per hour; 0 beyond the threshold."""
        return score(self.num_services, self.latency_s, self.usd_per_hour) if self.meets_threshold else 0.0

    @property
    def latency_price(self) -> float:
        """Latency times price, from which a reader with another price makes another score."""
        return self.latency_s * self.usd_per_hour


def score(num_services: int, latency_s: float, usd_per_hour: float) -> float:
    """Return num_services / (latency_s * usd_per_hour)."""
    return num_services / (latency_s * usd_per_hour)


def latency_price(num_services: int, score_value: float) -> float:
    """Return the product of latency and price that a published score means, in dollar seconds per hour."""
    return num_services / score_value

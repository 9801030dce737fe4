"""Latencies and prices in, the economic score out: pure arithmetic.

    score = num_services / (latency_s * usd_per_hour), where latency_s and the time per output token keep their limits

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
        tpot_ms: time per output token under the load that the cost of tokens is of; None where nobody knows it.
        tpot_limit_ms: of the recipe's `slo.tpot_ms`; None where it is not judged.
    """

    num_services: int
    latency_s: float
    prompt_tokens: int
    num_cards: int
    price: Price
    threshold_s: float | None
    tpot_ms: float | None = None
    tpot_limit_ms: float | None = None

    @property
    def usd_per_hour(self) -> float:
        """What all cards cost."""
        return self.num_cards * self.price.usd_per_hour

    @property
    def is_first_token_late(self) -> bool:
        """Whether the time to first token is beyond its limit."""
        return self.threshold_s is not None and self.latency_s > self.threshold_s

    @property
    def tpot_fault(self) -> str | None:
        """In words: how the time per output token misses its limit; None where it keeps it, or has none.

        What nobody knows keeps no limit: a card must not be called cheap enough by silence.
        """
        if self.tpot_limit_ms is None:
            return None
        if self.tpot_ms is None:
            return "TPOT not known"
        return f"TPOT above {self.tpot_limit_ms:g} ms" if self.tpot_ms > self.tpot_limit_ms else None

    @property
    def meets_threshold(self) -> bool:
        """Whether it counts at all: every limit that is judged is kept."""
        return not self.is_first_token_late and self.tpot_fault is None

    @property
    def limits(self) -> tuple[str, ...]:
        """In words: the limits that are judged."""
        first = () if self.threshold_s is None else (f"TTFT {self.threshold_s:g} s",)
        return first if self.tpot_limit_ms is None else (*first, f"TPOT {self.tpot_limit_ms:g} ms")

    @property
    def value(self) -> float:
        """Services per second of latency and dollar per hour; 0 beyond a limit."""
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

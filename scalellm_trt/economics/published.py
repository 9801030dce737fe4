"""ScaleLLM's table of economic scores: what follows from it, at which price, and what does not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from scalellm_trt.economics.score import latency_price

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scalellm_trt.economics.prices import Price


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedScore:
    """A row of the table."""

    name: str
    gpu: str
    num_services: int
    value: float

    @property
    def latency_price(self) -> float:
        """Latency times price, all that the row pins, in dollar seconds per hour."""
        return latency_price(self.num_services, self.value)

    def latency_s(self, price: Price) -> float:
        """Return the latency that the row means at a price."""
        return self.latency_price / price.usd_per_hour


A100_VLLM = PublishedScore(name="A100, vLLM", gpu="a100-80g", num_services=1, value=1.788348411)
A100 = tuple(
    PublishedScore(name=f"A100, {number} service{'s' * (number > 1)}", gpu="a100-80g", num_services=number, value=value)
    for number, value in ((1, 3.409424471), (2, 6.75725733), (3, 6.495556906))
)
L4 = PublishedScore(name="L4", gpu="l4", num_services=1, value=6.580409258)
T4 = PublishedScore(name="T4", gpu="t4", num_services=1, value=1.140966926)
RTX_4090 = PublishedScore(name="RTX 4090", gpu="rtx4090", num_services=1, value=20.28360167)
TABLE = (A100_VLLM, *A100, L4, T4, RTX_4090)
SOURCE = "ScaleLLM's published table of economic scores (late 2023); neither latencies nor prices are published"

# What the text beside the table claims.
CLAIMED_SPEED_UP_4090 = 1.88
CLAIMED_THRESHOLD_S = 1.0
CLAIMED_TIMES_CHEAPER = 20


def findings(prices: Mapping[str, Price]) -> tuple[str, ...]:
    """Return what can be derived with certainty, and with the prices of cards that are given by the card's name."""
    base = A100_VLLM.latency_price
    ratios = ", ".join(f"{row.num_services}: {base / row.latency_price:.4f}x" for row in A100)
    found = [
        f"On the A100 the price cancels: against vLLM the latency is lower by, per number of services, {ratios}.",
        f"The second service costs {A100[1].latency_price / A100[0].latency_price - 1:+.1%} latency, the third "
        f"{A100[2].latency_price / A100[0].latency_price - 1:+.1%}: they were most likely not loaded at once.",
        f"The best row is {RTX_4090.value / A100_VLLM.value:.2f} times the baseline's score, not "
        f"{CLAIMED_TIMES_CHEAPER} times.",
        f"If the RTX 4090 is {CLAIMED_SPEED_UP_4090} times as fast as vLLM on the A100, its price is "
        f"{RTX_4090.latency_price * CLAIMED_SPEED_UP_4090 / base:.4f} of the A100's.",
        f"The T4 is below {CLAIMED_THRESHOLD_S:g} s only above {T4.latency_price / CLAIMED_THRESHOLD_S:.3f} USD/h.",
    ]
    t4, a100, rtx4090 = (prices.get(row.gpu) for row in (T4, A100_VLLM, RTX_4090))
    if t4 is not None:
        seconds = T4.latency_s(t4)
        verdict = "holds" if seconds < CLAIMED_THRESHOLD_S else "does not hold"
        found.append(f"At {t4.usd_per_hour:g} USD/h it takes {seconds:.3f} s: the claim {verdict} at that price.")
    if a100 is not None and rtx4090 is not None:
        ratio = A100_VLLM.latency_s(a100) / RTX_4090.latency_s(rtx4090)
        found.append(f"At these prices the RTX 4090 is {ratio:.2f} times as fast as vLLM on the A100.")
    return tuple(found)


NOT_DERIVABLE = (
    "any latency or price by itself: the table pins their product only",
    "the length of the prompts, and of the answers",
    "whether several services were loaded at the same moment",
    "which percentile the latency is, and of how many requests",
    "the claims of 1.88x (RTX 4090), of less than a second (T4, L4) and of 20x: they depend on prices nobody published",
)

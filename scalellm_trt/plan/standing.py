"""A plan's predicted speed and a price in, its row of a score table out: an estimate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scalellm_trt.economics import Score, TokenRate
from scalellm_trt.economics.standing import Standing

if TYPE_CHECKING:
    from scalellm_trt.economics import Price
    from scalellm_trt.plan.outlook import Outlook
    from scalellm_trt.plan.types import Plan
    from scalellm_trt.predict.service import Speed

BY_PREFILL = "input share of the bill = time of prefills / time of the batch, as predicted"


def standing(plan: Plan, seen: Outlook, price: Price, *, source: str, threshold_s: float | None) -> Standing | None:
    """Return how a plan stands at a price; None where no speed is predicted (processors).

    The latency is that of the stated prompt when every service gets one at once; the rate of tokens that of the
    largest batch which the plan holds.
    """
    if seen.speed is None:
        return None
    first = next(each for each in seen.speed.first_token if each.prompt == seen.speed.prompt)
    each_service = f"{plan.services} prompt{'s' * (plan.services > 1)} at once"
    return Standing(
        source=source,
        basis="estimate",
        load=f"{each_service}; tokens: {seen.speed.batches[-1].batch} requests at once",
        latency_name="TTFT",
        score=Score(
            num_services=plan.services,
            latency_s=first.ttft_all_services_ms / 1000,
            prompt_tokens=seen.speed.prompt,
            num_cards=plan.world_size,
            price=price,
            threshold_s=threshold_s,
        ),
        rate=_rate(seen.speed, first.ttft_ms / 1000),
    )


def _rate(speed: Speed, ttft_s: float) -> TokenRate:
    """Return the tokens of in-flight batching, where a round reads each prompt once beside the steps of all."""
    best = speed.batches[-1]
    round_s = best.batch * speed.max_tokens / best.output_tokens_per_s
    return TokenRate(
        input_tokens_per_s=best.output_tokens_per_s * speed.prompt / speed.max_tokens,
        output_tokens_per_s=best.output_tokens_per_s,
        input_share=min(1.0, best.batch * ttft_s / round_s),
        apportioned=BY_PREFILL,
    )

"""A plan's predicted speed and a price in, its row of a score table out: an estimate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scalellm_trt.economics import Score, TokenRate
from scalellm_trt.economics.standing import Standing

if TYPE_CHECKING:
    from scalellm_trt.economics import Price
    from scalellm_trt.plan.outlook import Outlook
    from scalellm_trt.plan.types import Plan
    from scalellm_trt.predict.service import BatchSpeed, Speed

BY_PREFILL = "input share of the bill = time of prefills / time of the batch, as predicted"


def standing(
    plan: Plan,
    seen: Outlook,
    price: Price,
    *,
    source: str,
    threshold_s: float | None,
    tpot_limit_ms: float | None = None,
) -> Standing | None:
    """Return how a plan stands at a price; None where no speed is predicted (processors).

    The latency is that of the stated prompt when every service gets one at once; the rate of tokens, and the time per
    token, those of the largest batch that the plan holds and that keeps `tpot_limit_ms`, if any does.
    """
    if seen.speed is None:
        return None
    first = next(each for each in seen.speed.first_token if each.prompt == seen.speed.prompt)
    each_service = f"{plan.services} prompt{'s' * (plan.services > 1)} at once"
    best = seen.speed.batches_within(tpot_limit_ms)[-1]
    together = f"{best.batch} request{'s' * (best.batch > 1)} at once"
    return Standing(
        source=source,
        basis="estimate",
        load=f"{each_service}; tokens: {together}",
        latency_name="TTFT",
        score=Score(
            num_services=plan.services,
            latency_s=first.ttft_all_services_ms / 1000,
            prompt_tokens=seen.speed.prompt,
            num_cards=plan.world_size,
            price=price,
            threshold_s=threshold_s,
            tpot_ms=best.tpot_ms,
            tpot_limit_ms=tpot_limit_ms,
        ),
        rate=_rate(seen.speed, best, first.ttft_ms / 1000),
        tpot_name=f"TPOT at {best.batch} at once",
    )


def _rate(speed: Speed, best: BatchSpeed, ttft_s: float) -> TokenRate:
    """Return the tokens of in-flight batching, where a round reads each prompt once beside the steps of all."""
    round_s = best.batch * speed.max_tokens / best.output_tokens_per_s
    return TokenRate(
        input_tokens_per_s=best.output_tokens_per_s * speed.prompt / speed.max_tokens,
        output_tokens_per_s=best.output_tokens_per_s,
        input_share=min(1.0, best.batch * ttft_s / round_s),
        apportioned=BY_PREFILL,
    )

"""What a plan means for its users: the KV pool in sequences, the predicted speed, the economic score. All estimates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from scalellm_trt import economics, facts
from scalellm_trt.plan.pool import concurrency, device_budget, last_loader_fraction, num_sequences
from scalellm_trt.predict import service

if TYPE_CHECKING:
    from scalellm_trt.economics import Score
    from scalellm_trt.plan.types import Plan
    from scalellm_trt.predict.service import Speed

PROMPT_TOKENS = 512  # at which ScaleLLM's published scores agree with market prices and with physics
MAX_TOKENS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class KvPool:
    """The KV pool of one service.

    Attributes:
        max_tokens_in_paged_kv_cache: absolute, so that no service depends on who loads first.
        sequences: of max_seq_len that it holds.
        concurrency: requests of the stated prompt and answer that run at once.
        last_loader_fraction: of the memory free at that moment, which the last service to load needs at least; None
            on processors.
        spare_bytes: what the card has left beyond the plan; None on processors.
    """

    max_tokens_in_paged_kv_cache: int
    bytes_per_token: int
    num_bytes: int
    sequences: int
    concurrency: int
    last_loader_fraction: float | None
    spare_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """Capacity, speed and score for requests of one length."""

    prompt: int
    max_tokens: int
    pool: KvPool
    speed: Speed | None
    score: Score | None
    usd_per_million_tokens: float | None


def outlook(
    plan: Plan,
    *,
    prompt: int = PROMPT_TOKENS,
    max_tokens: int = MAX_TOKENS,
    ttft_limit_ms: float | None = None,
    tpot_limit_ms: float | None = None,
) -> Outlook:
    """Return what requests of `prompt` and `max_tokens` tokens may expect, both cut to the plan's limits.

    The cost of tokens is that of the batch which makes the most of them within `tpot_limit_ms`.
    """
    prompt = min(prompt, plan.limits.max_input_len)
    max_tokens = max(1, min(max_tokens, plan.limits.max_seq_len - prompt))
    speed = _speed(plan, prompt, max_tokens)
    score = _score(plan, speed, ttft_limit_ms, tpot_limit_ms)
    kept = speed.batches_within(tpot_limit_ms) if speed else ()
    best = max((each.output_tokens_per_s for each in kept), default=0.0)
    cost = economics.usd_per_million_tokens(score.usd_per_hour, best) if score is not None and best else None
    return Outlook(
        prompt=prompt,
        max_tokens=max_tokens,
        pool=_pool(plan, prompt, max_tokens),
        speed=speed,
        score=score,
        usd_per_million_tokens=cost,
    )


def _pool(plan: Plan, prompt: int, max_tokens: int) -> KvPool:
    budget = device_budget(plan)
    serving = plan.serving
    return KvPool(
        max_tokens_in_paged_kv_cache=serving.kv_cache_tokens,
        bytes_per_token=-(-serving.kv_cache_bytes // serving.kv_cache_tokens),
        num_bytes=serving.kv_cache_bytes,
        sequences=num_sequences(plan, plan.limits.max_seq_len),
        concurrency=concurrency(plan, prompt, max_tokens),
        last_loader_fraction=last_loader_fraction(plan),
        spare_bytes=None if budget is None else budget.available_bytes - budget.total_bytes,
    )


def _speed(plan: Plan, prompt: int, max_tokens: int) -> Speed | None:
    return service.speed(
        service.SpeedInputs(
            spec=plan.spec,
            dtype=plan.dtype,
            weights=facts.weight_formats()[f"{plan.backend}/{plan.quantization.weights}"],
            group_size=plan.quantization.group_size,
            kv=facts.kv_cache_formats()[f"{plan.backend}/{plan.quantization.kv_cache_dtype}"],
            hardware=facts.hardware()[plan.hardware],
            tp_size=plan.tp_size,
            services=plan.services,
            max_input_len=plan.limits.max_input_len,
            max_num_tokens=plan.limits.max_num_tokens,
            is_chunked=plan.serving.chunked_context,
            concurrency=concurrency(plan, prompt, max_tokens),
            prompt=prompt,
            max_tokens=max_tokens,
        )
    )


def _score(plan: Plan, speed: Speed | None, ttft_limit_ms: float | None, tpot_limit_ms: float | None) -> Score | None:
    """Score the stated prompt with every service loaded at once."""
    price = economics.price_of(plan.hardware)
    if speed is None or price is None:
        return None
    first = next(each for each in speed.first_token if each.prompt == speed.prompt)
    return economics.Score(
        num_services=plan.services,
        latency_s=first.ttft_all_services_ms / 1000,
        prompt_tokens=speed.prompt,
        num_cards=plan.tp_size * plan.pp_size,
        price=price,
        threshold_s=None if ttft_limit_ms is None else ttft_limit_ms / 1000,
        tpot_ms=speed.batches_within(tpot_limit_ms)[-1].tpot_ms,
        tpot_limit_ms=tpot_limit_ms,
    )

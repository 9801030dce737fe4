"""The KV pool where the recipe leaves it open: on a card, what the rest of the budget leaves."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from scalellm_trt import memory
from scalellm_trt.plan.types import Decision

if TYPE_CHECKING:
    from scalellm_trt.memory import MemoryBudget, MemoryInputs
    from scalellm_trt.plan.notes import Notes
    from scalellm_trt.plan.types import Plan, ServingPlan

KEY = "serving.kv_cache_tokens"


def fill_card(inputs: MemoryInputs, serving: ServingPlan, notes: Notes) -> tuple[MemoryInputs, ServingPlan]:
    """Give each service what its share of the card leaves, at most what its batch can use, at least one sequence.

    A share below one sequence and the spare block does not fit; the pool of one sequence then says by how much.
    """
    block_tokens = serving.tokens_per_block
    one_sequence = memory.num_blocks(inputs.max_seq_len, block_tokens) * block_tokens
    that_fit = memory.kv_tokens_that_fit(inputs)
    tokens = max(one_sequence + block_tokens, min(serving.kv_cache_tokens, that_fit))
    if tokens == serving.kv_cache_tokens:
        return inputs, serving
    num_bytes = tokens // block_tokens * (serving.kv_cache_bytes // (serving.kv_cache_tokens // block_tokens))
    shared = "" if inputs.services == 1 else f", its share of {inputs.services} services"
    count = tokens // one_sequence
    sequences = f"{count} sequence{'' if count == 1 else 's'} of max_seq_len {inputs.max_seq_len}"
    reason = f"what the card leaves{shared}: {sequences}"
    decision = Decision(field=KEY, value=str(tokens), reason=reason)
    notes.decisions[:] = [decision if old.field == KEY else old for old in notes.decisions]
    filled = dataclasses.replace(serving, kv_cache_tokens=tokens, kv_cache_bytes=num_bytes)
    return dataclasses.replace(inputs, kv_cache_tokens=tokens), filled


def device_budget(plan: Plan) -> MemoryBudget | None:
    """Return what the loaded services take of one card; None for processors."""
    return next((budget for budget in plan.budgets if (budget.stage, budget.place) == ("serve", "device")), None)


def last_loader_fraction(plan: Plan) -> float | None:
    """Return the share of the then free memory that the last service to load needs for its pool; None on processors.

    An engine takes min(max_tokens * bytes per token, fraction * free memory): with an absolute max_tokens the pools do
    not depend on who loads first, as long as the fraction is no less than this. The margin counts as not free.
    """
    budget = device_budget(plan)
    if budget is None:
        return None
    pools = sum(item.num_bytes for item in budget.items if item.name == "KV cache")
    free_for_last = budget.available_bytes - (budget.total_bytes - pools // plan.services)
    return pools / plan.services / free_for_last if free_for_last > 0 else 1.0


def num_sequences(plan: Plan, tokens: int) -> int:
    """Return how many sequences of `tokens` the pool of one service holds, in whole blocks."""
    block_tokens = plan.serving.tokens_per_block
    return plan.serving.kv_cache_tokens // block_tokens // memory.num_blocks(tokens, block_tokens)


def concurrency(plan: Plan, prompt: int, max_tokens: int) -> int:
    """Return how many requests of (prompt, max_tokens) one service runs at once: its blocks, and its batch.

    guaranteed_no_evict reserves both at admission; max_utilization may start more and pause some.
    """
    return min(plan.limits.max_batch_size, num_sequences(plan, prompt + max_tokens))

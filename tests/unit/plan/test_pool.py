from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from scalellm_trt.backends.tensorrt_llm_models import free_memory_fraction
from scalellm_trt.plan import DoesNotFitError, concurrency, last_loader_fraction, num_sequences
from tests.fakes import planning
from tests.fakes.gpu_planning import RTX4090, make

A100: dict[str, Any] = {
    "hardware": "a100-80g",
    "services": 3,
    "quantization": {"weights": "int4_awq", "kv_cache_dtype": "int8"},
    "limits": RTX4090 | {"max_batch_size": 32},
    "serving": {"kv_cache_tokens": 40960},
}


def test_a_pool_that_is_left_open_is_what_the_card_leaves() -> None:
    plan = make(serving={})
    assert plan.serving.kv_cache_tokens == pytest.approx(23_700, abs=100)
    assert plan.serving.kv_cache_bytes == plan.serving.kv_cache_tokens * 409_600
    decision = next(d for d in plan.decisions if d.field == "serving.kv_cache_tokens")
    assert decision.reason == "what the card leaves: 5 sequences of max_seq_len 4096"
    assert [d.field for d in plan.decisions].count("serving.kv_cache_tokens") == 1


def test_a_pool_is_never_larger_than_the_batch_can_use() -> None:
    plan = make(serving={}, limits=RTX4090 | {"max_batch_size": 2})
    assert plan.serving.kv_cache_tokens == 2 * 4096 + 32


@pytest.mark.parametrize(("hardware", "services"), [("rtx4090", 1), ("h100", 1), ("h200", 2)])
def test_an_open_pool_is_one_that_the_engine_takes_whole(hardware: str, services: int) -> None:
    """The engine takes min(pool, fraction x free memory), and no fraction above 0.99 is written."""
    quantization = {"weights": "fp8", "kv_cache_dtype": "fp8"}
    limits = RTX4090 | {"max_batch_size": 256}
    plan = make(serving={}, hardware=hardware, services=services, quantization=quantization, limits=limits)
    load = next(b for b in plan.budgets if (b.stage, b.place) == ("load", "device"))
    pool = plan.serving.kv_cache_bytes
    free_for_the_last = load.available_bytes - load.total_bytes + pool
    assert pool <= free_memory_fraction(plan) * free_for_the_last
    assert pool > 0.97 * free_for_the_last or services > 1 or hardware == "rtx4090"


def test_a_card_without_room_for_one_sequence_is_held_against_one_and_the_spare_block() -> None:
    with pytest.raises(DoesNotFitError) as caught:
        make(serving={}, quantization={"weights": "full_prec"})
    assert caught.value.plan.serving.kv_cache_tokens == 4096 + 32


def test_three_services_get_equal_absolute_pools_of_at_least_one_full_sequence() -> None:
    plan = make(**A100)
    assert plan.serving.kv_cache_tokens == 40960
    assert num_sequences(plan, 4096) == 10
    filled = make(**(A100 | {"serving": {}}))
    assert filled.serving.kv_cache_tokens == pytest.approx(47_500, abs=100)
    assert num_sequences(filled, 4096) >= 1


def test_pools_do_not_depend_on_who_loads_first() -> None:
    """Replay the rule of the engine: min(max_tokens x bytes, fraction x free memory), one service after another."""
    plan = make(**A100)
    budget = next(b for b in plan.budgets if (b.stage, b.place) == ("serve", "device"))
    fraction = last_loader_fraction(plan)
    assert fraction is not None
    pool = plan.serving.kv_cache_bytes
    shared = budget.item_bytes("CUDA context") + budget.item_bytes("margin")
    others = (budget.total_bytes - shared - 3 * pool) // 3
    free = budget.available_bytes - shared
    taken = []
    for _ in range(3):
        free -= others
        taken.append(min(pool, round(fraction * free)))
        free -= taken[-1]
    assert taken == pytest.approx([pool] * 3, rel=1e-6)
    slightly_less = fraction * 0.99
    assert min(pool, slightly_less * (free + pool)) < pool
    assert 0.6 < fraction < 0.95


def test_a_processor_has_no_fraction() -> None:
    assert last_loader_fraction(planning.make()) is None


def test_requests_at_once_are_cut_by_blocks_and_by_the_batch() -> None:
    plan = make()
    assert concurrency(plan, 512, 512) == 16
    assert concurrency(plan, 1024, 1024) == 10
    assert concurrency(plan, 4000, 96) == 5
    small = dataclasses.replace(plan, limits=dataclasses.replace(plan.limits, max_batch_size=3))
    assert concurrency(small, 512, 512) == 3

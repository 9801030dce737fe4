from __future__ import annotations

import dataclasses

import pytest

from scalellm_trt.bench import ceiling
from tests.fakes import gpu_planning, plans


def test_no_llama_on_a_4090_beats_the_time_in_which_its_weights_are_read() -> None:
    found = ceiling.of_plan(gpu_planning.make())
    assert found is not None
    # 12.69e9 weights of one byte and a head of 164e6 at 1,008 GB/s; then the KV cache of 1,000 tokens.
    assert found.min_tpot_ms(0) == pytest.approx(12.75, abs=0.05)
    assert found.min_tpot_ms(1000) - found.min_tpot_ms(0) == pytest.approx(409_600 * 1000 / 1008e9 * 1e3, rel=1e-6)
    # 512 tokens x 2 x 12.69e9 flops at 165.2 TFLOPS, and attention.
    assert found.min_ttft_ms(512) == pytest.approx(79.3, abs=0.5)
    assert found.max_tokens_per_s == pytest.approx(165.2e12 / 2 / 12.688e9, rel=0.001)


def test_more_cards_raise_it() -> None:
    one = ceiling.of_plan(gpu_planning.make())
    assert one is not None
    two = dataclasses.replace(one, tp_size=2, num_cards=2)
    assert two.min_tpot_ms(0) == pytest.approx(one.min_tpot_ms(0) / 2)
    assert two.max_tokens_per_s == 2 * one.max_tokens_per_s


def test_a_processor_has_one_only_where_somebody_says_its_bandwidth() -> None:
    plan = plans.tiny_plan()
    assert ceiling.of_plan(plan) is None
    found = ceiling.of_plan(plan, memory_bandwidth_gb_per_s=20)
    assert found is not None
    read = 2 * (found.shape.num_dense_parameters + found.shape.num_head_parameters)
    assert found.min_tpot_ms(0) == pytest.approx(read / 20e9 * 1e3)
    assert found.max_tokens_per_s == float("inf")
    limited = ceiling.of_plan(plan, memory_bandwidth_gb_per_s=20, tflops=0.5)
    assert limited is not None
    assert limited.max_tokens_per_s == pytest.approx(0.5e12 / 2 / found.shape.num_dense_parameters)

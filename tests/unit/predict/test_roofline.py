from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalellm_trt import facts
from scalellm_trt.predict import Format, Rates, Shape, constants_of, decode_step, prefill

LLAMA2_13B = Shape(
    num_layers=40,
    hidden_size=5120,
    q_size=5120,
    kv_size=5120,
    num_dense_parameters=12_687_769_600,
    num_head_parameters=32_000 * 5120,
)
MIXTRAL = Shape(
    num_layers=32,
    hidden_size=4096,
    q_size=4096,
    kv_size=1024,
    num_dense_parameters=1_342_177_280,
    num_expert_parameters=45_097_156_608,
    num_experts=8,
    num_experts_per_token=2,
    num_head_parameters=32_000 * 4096,
)
FP16 = Format(width="w16", gemm="fp16", weight_bytes=2.0, head_bytes=2.0, kv_bytes=2.0)
INT8 = dataclasses.replace(FP16, width="w8", gemm="weight_only", weight_bytes=1.0, kv_bytes=1.0)
A100 = Rates(peak_flops=312e12, bandwidth_bytes_per_s=2039e9, link_bytes_per_s=300e9)


def seconds(card: str, weights: str, form: Format, prompt: int) -> float:
    constants = constants_of(facts.hardware()[card], facts.weight_formats()[f"tensorrt_llm/{weights}"])
    assert constants is not None
    return prefill(LLAMA2_13B, form, constants.rates, prompt=prompt).seconds(constants.mfu, constants.mbu)


# facts: a prefill of 3,968 tokens of Llama-2-13B is 107 TFLOP; predicted seconds from the table of constants.
def test_a_prefill_counts_two_flops_a_weight_and_causal_attention() -> None:
    assert prefill(LLAMA2_13B, FP16, A100, prompt=3968).compute_s * 312 == pytest.approx(107.2, abs=0.2)


@pytest.mark.parametrize(
    ("card", "weights", "prompt", "expected_s"),
    [
        ("rtx4090", "int8_wo", 512, 0.123),
        ("rtx4090", "int8_wo", 3968, 0.973),
        ("rtx4090", "fp8", 3968, 0.617),
        ("a100-80g", "full_prec", 2048, 0.282),
        ("l4", "int8_wo", 1024, 0.402),
        ("t4", "int4_wo", 512, 0.73),
    ],
)
def test_predictions_equal_the_published_table_of_the_same_constants(
    card: str, weights: str, prompt: int, expected_s: float
) -> None:
    assert seconds(card, weights, INT8, prompt) == pytest.approx(expected_s, rel=0.03)


def test_weight_only_formats_do_not_speed_up_prefill_and_fp8_does() -> None:
    full, weight_only, fp8 = (seconds("rtx4090", name, FP16, 2048) for name in ("full_prec", "int8_wo", "fp8"))
    assert weight_only == full
    assert fp8 < 0.7 * full


def test_a_t4_is_held_at_its_sustained_rate_not_at_its_peak() -> None:
    constants = constants_of(facts.hardware()["t4"], facts.weight_formats()["tensorrt_llm/int4_wo"])
    assert constants is not None
    assert constants.tflops == 24


def test_a_geforce_counts_with_32_bit_accumulation() -> None:
    constants = constants_of(facts.hardware()["rtx4090"], facts.weight_formats()["tensorrt_llm/full_prec"])
    assert constants is not None
    assert constants.tflops == pytest.approx(165.2)


def test_a_processor_has_no_roofline() -> None:
    assert constants_of(facts.hardware()["cpu"], facts.weight_formats()["openvino/int8_wo"]) is None


def test_decoding_reads_the_weights_once_and_the_cache_of_every_sequence() -> None:
    step = decode_step(LLAMA2_13B, INT8, A100, context=1000, batch=4)
    weights, cache = 12_687_769_600 + 2 * 32_000 * 5120, 4 * 1000 * 409_600
    assert step.memory_s * 2039e9 == pytest.approx(weights + cache)


def test_experts_that_no_token_chose_are_not_read() -> None:
    one, many = (decode_step(MIXTRAL, FP16, A100, context=0, batch=batch).memory_s for batch in (1, 64))
    assert one * 2039e9 / 2 == pytest.approx(1_342_177_280 + 45_097_156_608 / 4 + 32_000 * 4096)
    assert many / one == pytest.approx(3.65, abs=0.1)
    assert MIXTRAL.num_active_parameters == pytest.approx(1_342_177_280 + 45_097_156_608 / 4)


def test_tensor_parallel_ranks_share_the_work_and_pay_for_talking() -> None:
    one, two = (prefill(LLAMA2_13B, FP16, A100, prompt=1024, tp_size=size) for size in (1, 2))
    assert two.compute_s == pytest.approx(one.compute_s / 2)
    moved = 2 * 40 * (2 * 0.5 * 1024 * 5120 * 2) / 300e9
    assert two.fixed_s - one.fixed_s == pytest.approx(moved + 2 * 40 * 0.00005)


@given(st.integers(1, 4000), st.integers(1, 400), st.integers(1, 64))
def test_more_tokens_never_take_less_time(prompt: int, more: int, batch: int) -> None:
    def took(tokens: int) -> float:
        return prefill(LLAMA2_13B, FP16, A100, prompt=tokens, batch=batch).seconds(0.6, 0.7)

    assert took(prompt) <= took(prompt + more)
    step = decode_step(LLAMA2_13B, FP16, A100, context=prompt, batch=batch).seconds(0.6, 0.7)
    assert step <= decode_step(LLAMA2_13B, FP16, A100, context=prompt, batch=batch + 1).seconds(0.6, 0.7)

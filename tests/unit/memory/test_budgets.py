from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalellm_trt import facts, memory
from tests.fakes.planning import MACHINE, SMOLLM2

MIB = 1 << 20


def inputs(**changes: Any) -> memory.MemoryInputs:
    base = memory.MemoryInputs(
        spec=SMOLLM2,
        dtype="float16",
        weights=facts.weight_formats()["openvino/int8_wo"],
        group_size=None,
        kv=facts.kv_cache_formats()["openvino/float16"],
        kv_cache_tokens=4096,
        calibration_tokens=0,
        calibration_sample_tokens=0,
        max_batch_size=16,
        max_input_len=1023,
        max_seq_len=1024,
        max_num_tokens=1024,
        tp_size=1,
        pp_size=1,
        services=1,
        hardware=facts.hardware()["cpu"],
        toolchain=facts.toolchains()["openvino-2026.4"],
        machine=MACHINE,
    )
    return dataclasses.replace(base, **changes)


def total(budget_inputs: memory.MemoryInputs, stage: str, place: str = "host") -> int:
    found = [b for b in memory.budgets(budget_inputs) if (b.stage, b.place) == (stage, place)]
    return found[0].total_bytes


def item(budget_inputs: memory.MemoryInputs, stage: str, name: str) -> int:
    budget = next(b for b in memory.budgets(budget_inputs) if (b.stage, b.place) == (stage, "host"))
    return next(part.num_bytes for part in budget.items if part.name == name)


def test_every_stage_has_a_host_budget_and_the_writing_ones_a_disk_budget() -> None:
    places = [(budget.stage, budget.place) for budget in memory.budgets(inputs())]
    assert places == [
        ("quantize", "host"), ("compile", "host"), ("load", "host"), ("serve", "host"),
        ("quantize", "disk"), ("compile", "disk"),
    ]  # fmt: skip


# Packed matrices as read from /proc/PID/status of an engine of this model, after steps of one and of many rows.
@pytest.mark.parametrize(("weights", "measured_mib"), [("full_prec", 458), ("int8_wo", 257), ("int4_wo", 156)])
def test_weights_in_memory_are_what_was_measured(weights: str, measured_mib: int) -> None:
    planned = inputs(weights=facts.weight_formats()[f"openvino/{weights}"])
    found = item(planned, "serve", "weights") + item(planned, "serve", "output head")
    assert found / MIB == pytest.approx(measured_mib, rel=0.02)


# Sizes of openvino_model.bin of this model.
@pytest.mark.parametrize(
    ("weights", "measured_bytes"), [("full_prec", 269_100_784), ("int8_wo", 163_554_544), ("int4_wo", 110_470_384)]
)
def test_the_engine_on_disk_is_as_large_as_a_real_one(weights: str, measured_bytes: int) -> None:
    planned = inputs(weights=facts.weight_formats()[f"openvino/{weights}"])
    assert total(planned, "compile", "disk") == pytest.approx(measured_bytes, rel=0.005)


def test_streaming_conversion_takes_the_same_memory_for_a_hundred_times_larger_model() -> None:
    larger = dataclasses.replace(SMOLLM2, num_layers=3000)
    assert total(inputs(spec=larger), "quantize") == total(inputs(), "quantize")


def test_calibration_takes_one_layer_in_float32_however_many_there_are() -> None:
    awq = inputs(
        weights=facts.weight_formats()["openvino/int4_awq"],
        group_size=64,
        calibration_tokens=32 * 512,
        calibration_sample_tokens=512,
    )
    layer = 4 * SMOLLM2.num_linear_parameters // SMOLLM2.num_layers
    assert item(awq, "quantize", "one layer (estimate)") == 3 * layer
    larger = dataclasses.replace(SMOLLM2, num_layers=60)
    assert total(dataclasses.replace(awq, spec=larger), "quantize") == total(awq, "quantize")


def test_services_multiply_everything_but_the_server() -> None:
    one, three = inputs(), inputs(services=3)
    server = item(one, "serve", "tritonserver")
    assert total(three, "serve") - server == 3 * (total(one, "serve") - server)


def test_the_reserve_of_the_machine_is_left_alone() -> None:
    budget = memory.budgets(inputs())[0]
    assert budget.available_bytes == MACHINE.memory_total_bytes - facts.hardware()["cpu"].reserved_bytes


@given(
    st.sampled_from(["kv_cache_tokens", "max_batch_size", "max_num_tokens", "services"]),
    st.integers(1, 100_000),
    st.integers(0, 100_000),
)
def test_no_budget_shrinks_when_a_limit_grows(name: str, value: int, more: int) -> None:
    before, after = memory.budgets(inputs(**{name: value})), memory.budgets(inputs(**{name: value + more}))
    for smaller, larger in zip(before, after, strict=True):
        assert smaller.total_bytes <= larger.total_bytes


@given(st.integers(1, 20_000))
def test_a_whole_block_more_of_cache_costs_exactly_a_block(blocks: int) -> None:
    kv, toolchain = inputs().kv, inputs().toolchain
    block = memory.kv_cache_bytes_per_block(SMOLLM2, kv, toolchain.tokens_per_block)
    sizes = [total(inputs(kv_cache_tokens=32 * n), "serve") for n in (blocks, blocks + 1)]
    assert sizes[1] - sizes[0] == block


# An engine process of SmolLM2-135M in full_prec: 155 MB once loaded, 700 MB after steps of one and of many rows.
def test_full_precision_takes_what_was_measured_at_load_and_after_use() -> None:
    full = inputs(weights=facts.weight_formats()["openvino/full_prec"])
    loaded = total(full, "load") - item(full, "load", "tritonserver")
    assert 155e6 <= loaded <= 1.25 * 155e6
    used = total(full, "serve") - item(full, "serve", "tritonserver") - item(full, "serve", "KV cache")
    assert 0.95 * 700e6 <= used <= 1.25 * 700e6

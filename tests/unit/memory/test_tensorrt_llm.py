from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalellm_trt import facts, memory, model_spec
from scalellm_trt.detect import Gpu
from scalellm_trt.memory import tensorrt_llm
from tests.fakes.planning import GIB, MACHINE

LLAMA2_13B = model_spec.from_hf_config(facts.models()["Llama-2-13b-chat"].config)
MIXTRAL = model_spec.from_hf_config(facts.models()["Mixtral-8x7B-Instruct-v0.1"].config)
ONE_RANK = memory.Shard(tp_size=1, pp_size=1)


def inputs(weights: str = "int8_wo", kv: str = "fp8", card: str = "rtx4090", **changes: Any) -> memory.MemoryInputs:
    base = memory.MemoryInputs(
        spec=LLAMA2_13B,
        dtype="float16",
        weights=facts.weight_formats()[f"tensorrt_llm/{weights}"],
        group_size=128,
        kv=facts.kv_cache_formats()[f"tensorrt_llm/{kv}"],
        kv_cache_tokens=20480,
        calibration_tokens=512 * 512 if weights in ("fp8", "int4_awq") or kv == "int8" else 0,
        calibration_sample_tokens=512,
        max_batch_size=16,
        max_input_len=4000,
        max_seq_len=4096,
        max_num_tokens=4096,
        tp_size=1,
        pp_size=1,
        services=1,
        hardware=facts.hardware()[card],
        toolchain=facts.toolchains()["tensorrt-llm-1.2.1"],
        machine=MACHINE,
    )
    return dataclasses.replace(base, **changes)


def budget(of: memory.MemoryInputs, stage: str, place: str) -> memory.MemoryBudget:
    return next(found for found in memory.budgets(of) if (found.stage, found.place) == (stage, place))


def item(found: memory.MemoryBudget, name: str) -> int:
    return sum(part.num_bytes for part in found.items if part.name == name)


@pytest.mark.parametrize(("kv", "expected"), [("fp8", 409_600), ("int8", 409_600), ("float16", 819_200)])
def test_a_token_of_llama_2_13b_takes_its_published_bytes_of_kv_cache(kv: str, expected: int) -> None:
    assert memory.kv_cache_bytes_per_token(LLAMA2_13B, facts.kv_cache_formats()[f"tensorrt_llm/{kv}"], 32) == expected
    serve = budget(inputs(kv=kv), "serve", "device")
    assert item(serve, "KV cache") == 20480 * expected


@pytest.mark.parametrize(
    ("weights", "expected_gib"),
    [("full_prec", 24.24), ("int8_wo", 12.43), ("fp8", 12.43), ("int4_wo", 6.52), ("int4_awq", 6.71)],
)
def test_weights_of_llama_2_13b_have_their_published_size(weights: str, expected_gib: float) -> None:
    row = facts.weight_formats()[f"tensorrt_llm/{weights}"]
    groups = memory.tensor_groups(LLAMA2_13B, row, 128, "float16", ONE_RANK)
    assert round(memory.total_bytes(groups) / GIB, 2) == expected_gib
    serve = budget(inputs(weights), "serve", "device")
    assert sum(i.num_bytes for i in serve.items if i.name.startswith("weights: ")) == memory.total_bytes(groups)


def test_embedding_and_lm_head_stay_16_bit_whatever_the_format() -> None:
    for name in ("full_prec", "int8_wo", "int4_awq", "fp8"):
        row = facts.weight_formats()[f"tensorrt_llm/{name}"]
        groups = {g.name: g for g in memory.tensor_groups(LLAMA2_13B, row, 128, "float16", ONE_RANK)}
        assert groups["embedding"].num_bytes == groups["lm_head"].num_bytes == 2 * 32_000 * 5120
        assert sum(g.num_elements for g in groups.values() if g.name in ("qkv", "dense", "mlp")) == 12_687_769_600


# facts: 0.45 + 0.9 + 0.35 + 0.5 GiB beside the weights leave these pools.
@pytest.mark.parametrize(
    ("card", "weights", "kv", "changes", "pool_gib"),
    [
        ("rtx4090", "int8_wo", "fp8", {}, 9.0),
        ("rtx3090", "int4_awq", "float16", {}, 14.7),
        ("t4", "int4_wo", "float16", {"max_batch_size": 4, "max_num_tokens": 2048, "max_input_len": 1024}, 5.3),
    ],
)
def test_the_pool_is_what_experts_expect_of_the_card(
    card: str, weights: str, kv: str, changes: dict[str, int], pool_gib: float
) -> None:
    planned = inputs(weights, kv, card, **changes)
    per_token = memory.kv_cache_bytes_per_token(LLAMA2_13B, planned.kv, planned.toolchain.tokens_per_block)
    assert memory.kv_tokens_that_fit(planned) * per_token / GIB == pytest.approx(pool_gib, abs=0.15)


def test_the_pool_that_fits_fits_and_one_block_more_does_not() -> None:
    planned = inputs()
    most = memory.kv_tokens_that_fit(planned)
    assert budget(dataclasses.replace(planned, kv_cache_tokens=most), "serve", "device").fits
    assert not budget(dataclasses.replace(planned, kv_cache_tokens=most + 32), "serve", "device").fits


def test_16_bit_weights_of_a_13b_fit_no_24_gb_card() -> None:
    serve = budget(inputs("full_prec", "float16"), "serve", "device")
    assert not serve.fits
    assert item(serve, "KV cache") == 20480 * 819_200


def test_unfused_attention_of_a_t4_takes_a_buffer_that_grows_with_the_square_of_the_prompt() -> None:
    for length, gib in ((1024, 0.23), (2048, 0.94), (3968, 3.52)):
        assert tensorrt_llm.attention_workspace_bytes(LLAMA2_13B, 1, length, 1) / GIB == pytest.approx(gib, abs=0.01)
    t4 = inputs("int4_wo", "float16", "t4", max_batch_size=4, max_input_len=1024)
    assert item(budget(t4, "serve", "device"), "attention workspace") == 4 * 40 * 1024**2 * 6
    assert item(budget(inputs(), "serve", "device"), "attention workspace") == 0


# TensorRT-LLM issue 1188: batch 2,048, 32,768 positions, a vocabulary of 151,936.
def test_decoder_and_runtime_buffers_are_as_large_as_logged() -> None:
    qwen = dataclasses.replace(LLAMA2_13B, vocab_size=151_936)
    assert tensorrt_llm.decoder_bytes(qwen, 2048, 32768) == pytest.approx(5.76e9, rel=0.01)
    assert tensorrt_llm.runtime_bytes(qwen, 2048, 32768) == pytest.approx(2.66e9, rel=0.05)


# Execution contexts that engines logged: TensorRT-LLM issue 2330 and memory.md.
def test_activations_are_near_what_engines_logged() -> None:
    qwen = model_spec.from_hf_config(facts.models()["Qwen2.5-7B-Instruct"].config)
    per_token = tensorrt_llm.activation_bytes_per_token(qwen, 140)
    assert per_token * 1024 == pytest.approx(262e6, rel=0.1)
    assert per_token * 384 == pytest.approx(91e6, rel=0.1)


def test_services_share_a_context_and_a_margin_and_nothing_else() -> None:
    one, three = budget(inputs(), "serve", "device"), budget(inputs(services=3), "serve", "device")
    shared = item(one, "CUDA context (estimate)") + item(one, "margin (estimate)")
    assert three.total_bytes - shared == 3 * (one.total_bytes - shared)


def test_ranks_share_heads_and_layers_and_hold_one_kv_head_at_least() -> None:
    kv = facts.kv_cache_formats()["tensorrt_llm/fp8"]
    assert memory.kv_cache_bytes_per_token(MIXTRAL, kv, 32, tp_size=8) == 8_192
    assert memory.kv_cache_bytes_per_token(MIXTRAL, kv, 32, tp_size=16) == 8_192
    assert memory.kv_cache_bytes_per_token(MIXTRAL, kv, 32, tp_size=8, pp_size=2) == 4_096
    row = facts.weight_formats()["tensorrt_llm/fp8"]
    groups = memory.tensor_groups(MIXTRAL, row, None, "bfloat16", memory.Shard(tp_size=8, pp_size=1))
    assert memory.total_bytes(groups) / GIB == pytest.approx(5.68, abs=0.02)
    assert {group.name for group in groups} >= {"experts", "router"}


def test_calibration_holds_one_layer_and_one_batch_on_any_card_and_never_the_model() -> None:
    layer = 2 * 12_687_769_600 // 40
    found = budget(inputs("fp8"), "quantize", "device")
    assert item(found, "one layer (estimate)") == 3 * layer
    per_token = 2 * (3 * 13824 + 8 * 5120) + 3 * 4 * 13824
    assert item(found, "batch (estimate)") == 2048 * per_token
    assert found.total_bytes < 6 * GIB
    large = budget(inputs("fp8", card="a100-80g"), "quantize", "device")
    assert [i for i in large.items if "margin" not in i.name] == [i for i in found.items if "margin" not in i.name]
    assert budget(inputs("fp8"), "quantize", "host").total_bytes < 5 * GIB


def test_calibration_keeps_hidden_states_of_each_pass_on_the_disk_and_samples_longer_than_a_batch_whole() -> None:
    hidden = 512 * 512 * 5120 * 2
    assert item(budget(inputs("fp8"), "quantize", "disk"), "hidden states") == hidden
    assert item(budget(inputs("int4_awq"), "quantize", "disk"), "hidden states") == 2 * hidden
    longer = inputs("fp8", calibration_sample_tokens=8192)
    short, long = (item(budget(i, "quantize", "device"), "batch (estimate)") for i in (inputs("fp8"), longer))
    assert long == 4 * short


def test_an_int8_kv_cache_is_calibrated_whatever_the_weights() -> None:
    found = budget(inputs("int8_wo", kv="int8"), "quantize", "device")
    assert item(found, "one layer (estimate)") > 0


def test_formats_without_calibration_are_converted_without_a_card() -> None:
    stages = {(found.stage, found.place) for found in memory.budgets(inputs("int8_wo"))}
    assert ("quantize", "device") not in stages
    assert budget(inputs("int8_wo"), "quantize", "host").total_bytes < GIB


# facts: about 13 + 13 + 4 GB of host memory, and 26 GB of native checkpoint on disk.
def test_a_build_of_a_13b_takes_the_host_memory_and_disk_that_its_source_suggests() -> None:
    assert budget(inputs(), "compile", "host").total_bytes / 1e9 == pytest.approx(30.7, abs=1)
    assert budget(inputs(), "quantize", "disk").total_bytes / 1e9 == pytest.approx(26.0, abs=0.1)
    assert budget(inputs(), "compile", "disk").total_bytes / 1e9 == pytest.approx(13.3, abs=0.1)


def test_a_machine_without_a_gpu_is_only_warned_about_its_own_memory() -> None:
    here = budget(inputs(), "compile", "host")
    assert here.is_advisory
    assert not here.fits
    card = Gpu(
        index=0,
        name="NVIDIA GeForce RTX 4090",
        uuid="GPU-0",
        compute_capability="8.9",
        memory_bytes=24 * GIB,
        memory_free_bytes=24 * GIB,
        driver_version="590.44.01",
        has_display=False,
        has_mig=False,
    )
    with_card = dataclasses.replace(MACHINE, gpus=(card,))
    there = budget(inputs(machine=with_card), "compile", "host")
    assert not there.is_advisory
    assert not budget(inputs(), "serve", "device").is_advisory


def test_a_backend_without_an_engine_compiles_nothing_on_the_card() -> None:
    llmapi = inputs(toolchain=facts.toolchains()["tensorrt-llm-1.3"])
    assert ("compile", "device") not in {(found.stage, found.place) for found in memory.budgets(llmapi)}
    assert {found.stage for found in memory.budgets(llmapi)} == {"quantize", "compile", "load", "serve"}


@given(
    st.sampled_from(
        ["kv_cache_tokens", "max_batch_size", "max_input_len", "max_num_tokens", "max_seq_len", "services"]
    ),
    st.integers(1, 20_000),
    st.integers(0, 20_000),
    st.sampled_from(["rtx4090", "t4"]),
)
def test_no_budget_shrinks_when_a_limit_grows(name: str, value: int, more: int, card: str) -> None:
    small = dataclasses.replace(inputs(card=card), **{name: value})  # type: ignore[arg-type]
    large = dataclasses.replace(small, **{name: value + more})  # type: ignore[arg-type]
    before, after = memory.budgets(small), memory.budgets(large)
    for smaller, larger in zip(before, after, strict=True):
        assert smaller.total_bytes <= larger.total_bytes

"""The bundled rows about GPUs: complete, consistent with each other, and asked the way the plan asks."""

from __future__ import annotations

import datetime
from typing import get_args

import pytest

from scalellm_trt import facts, memory, model_spec, recipe
from scalellm_trt.errors import ScaleLLMError
from scalellm_trt.plan.combination import EFFECT_KEYS

CARDS = [row for row in facts.hardware().values() if row.kind == "gpu"]
IMAGES = {name: row.gpu for name, row in facts.toolchains().items() if row.gpu is not None}
RULE: dict[str, object] = {
    "backends": ["tensorrt_llm"],
    "allowed": True,
    "reason": "it works",
    "effects": {"no_kv_cache_reuse": "no reuse"},
    "confirmed": True,
    "source": "a file",
    "date": datetime.date(2026, 11, 24),
    "verified": False,
}


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_a_card_has_all_that_plan_and_prediction_ask_for(card: facts.Hardware) -> None:
    assert card.memory_bytes is not None
    assert card.memory_bandwidth_gb_per_s is not None
    assert card.compute_capability is not None
    assert card.tdp_watts is not None
    assert card.gpu_names
    capability = tuple(int(part) for part in card.compute_capability.split("."))
    assert ("fp8" in card.tflops) == (capability >= (8, 9))
    assert ("fp4" in card.tflops) == (capability >= (10, 0))
    assert ("bf16" in card.tflops) == (capability >= (8, 0))
    assert ("fp8" in card.mfu_prefill) == ("fp8" in card.tflops)
    assert set(card.mbu) == {"w16", "w8", "w4"}
    assert card.error_band in (0.3, 0.5)
    assert not card.origin.verified, "somebody has to have run it"
    if not card.is_calibrated:
        assert card.error_band == 0.5


def test_the_cards_of_the_issue_are_there_and_found_by_the_drivers_name() -> None:
    names = {card.name for card in CARDS}
    assert names >= {"t4", "l4", "a10", "rtx3090", "rtx4090", "rtx5090", "l40s", "a100-40g", "a100-80g", "h100", "h200"}
    assert "b200" in names
    found = facts.hardware_of("NVIDIA GeForce RTX 4090")
    assert found is not None
    assert found.name == "rtx4090"
    assert facts.hardware_of("NVIDIA GeForce GTX 970") is None


def test_no_two_cards_share_a_name() -> None:
    names = [name for card in CARDS for name in card.gpu_names]
    assert len(names) == len(set(names))


def test_geforce_cards_count_half_their_advertised_rate() -> None:
    card = facts.hardware()["rtx4090"]
    assert card.is_geforce
    assert card.tflops["fp16"] * 2 == pytest.approx(card.tflops["fp8"], rel=0.001)
    assert card.tflops["int8"] == 2 * card.tflops["fp8"]


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_is_pinned_among_those_that_are_accepted(name: str) -> None:
    gpu = IMAGES[name]
    assert gpu.image in gpu.images
    assert set(gpu.stamp_class) == set(gpu.images)
    assert gpu.driver.split(".")[0] >= gpu.driver_floor.split(".")[0]
    assert gpu.has_compile == bool(gpu.build_flags) == (gpu.backend_library is not None)


@pytest.mark.parametrize("name", [name for name, gpu in IMAGES.items() if gpu.has_compile])
def test_a_flag_that_is_gone_is_none_of_the_version_and_a_new_name_is(name: str) -> None:
    gpu = IMAGES[name]
    assert all(flag.startswith("--") for flag in gpu.build_flags)
    for old, new in gpu.renamed_flags.items():
        if new is None:
            assert old not in gpu.build_flags
        else:
            assert new in gpu.build_flags


def test_what_changed_between_the_generations_is_told_by_the_flags() -> None:
    old, new = IMAGES["tensorrt-llm-0.13.0"].build_flags, IMAGES["tensorrt-llm-1.2.1"].build_flags
    assert (old["--max_batch_size"], new["--max_batch_size"]) == ("256", "2048")
    assert (old["--use_paged_context_fmha"], new["--use_paged_context_fmha"]) == ("disable", "enable")
    assert old["--tokens_per_block"] == str(facts.toolchains()["tensorrt-llm-0.13.0"].tokens_per_block)
    assert new["--tokens_per_block"] == str(facts.toolchains()["tensorrt-llm-1.2.1"].tokens_per_block)
    assert "--monitor_memory" not in old
    assert "--builder_opt" not in new


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("Llama-2-7b-chat", 6_738_415_616), ("Llama-2-13b-chat", 13_015_864_320),
     ("Mixtral-8x7B-Instruct-v0.1", 46_702_792_704), ("Llama-3.1-8B-Instruct", 8_030_261_248),
     ("Qwen2.5-7B-Instruct", 7_615_616_512), ("Qwen2.5-14B-Instruct", 14_770_033_664),
     ("Mistral-7B-Instruct-v0.3", 7_248_023_552)],
)  # fmt: skip
def test_a_models_shape_adds_up_to_its_published_number_of_parameters(name: str, parameters: int) -> None:
    spec = model_spec.from_hf_config(facts.models()[name].config)
    small = memory.formulas.num_small_parameters(spec) + spec.num_router_parameters
    assert spec.num_linear_parameters + spec.num_embedding_parameters + small == parameters


def test_rules_name_formats_and_models_that_exist() -> None:
    for rule in facts.combination_rules().values():
        assert set(rule.backends) <= set(get_args(recipe.BackendName))
        assert set(rule.weights) <= set(get_args(recipe.WeightFormat))
        assert set(rule.architectures) <= set(get_args(model_spec.Architecture))
        assert all(issue.startswith("NVIDIA/TensorRT-LLM#") for issue in rule.issues)
        assert {effect.name for effect in rule.effects} <= set(EFFECT_KEYS)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"effects": {"explodes": "bang"}}, "effects.explodes must be one of"), ({"reason": ""}, "reason must be"),
     ({"versions": 1.2}, "versions must be a text")],
)  # fmt: skip
def test_a_rule_with_a_wrong_value_is_our_mistake(change: dict[str, object], message: str) -> None:
    with pytest.raises(ScaleLLMError, match=message) as caught:
        facts.parse_rows("quantization.yaml", {"rule": RULE | change}, facts.parse_rule)
    assert caught.value.exit_code == 1


def test_refusing_rules_come_first_and_effects_are_named_once() -> None:
    found = facts.combination("tensorrt_llm", "tensorrt-llm-0.13.0", "int4_wo", "int8", "7.5")
    assert found.is_allowed
    assert not found.is_confirmed
    names = [effect.name for effect in found.effects]
    assert len(names) == len(set(names))
    refused = facts.combination("tensorrt_llm", "tensorrt-llm-1.2.1", "int4_wo", "int8", "7.5")
    assert not refused.is_allowed
    assert refused.reason.startswith("TensorRT-LLM dropped Turing")
    assert refused.origin is not None
    assert "NVIDIA/TensorRT-LLM#2620" in refused.issues


def test_a_combination_that_no_rule_knows_is_allowed_and_silent() -> None:
    found = facts.combination("tensorrt_llm", "tensorrt-llm-1.2.1", "full_prec", "float16", "8.0")
    assert (found.is_allowed, found.is_confirmed, found.effects, found.reason, found.origin) == (
        True,
        True,
        (),
        "",
        None,
    )
    cpu = facts.combination("openvino", "openvino-2026.4", "int8_wo", "int8", None)
    assert cpu.rules == ()

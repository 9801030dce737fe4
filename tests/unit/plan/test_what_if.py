from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from scalellm_trt.plan import on_card, try_plan
from tests.fakes.gpu_planning import LLAMA2_13B, MODEL, loaded
from tests.fakes.planning import MACHINE

if TYPE_CHECKING:
    from scalellm_trt.plan import Plan
    from scalellm_trt.recipe import Recipe


def tried(recipe: Recipe) -> Plan | None:
    return try_plan(dataclasses.replace(loaded(), recipe=recipe), MODEL, LLAMA2_13B, MACHINE)


def moved(to: str, **sections: Any) -> tuple[Recipe, dict[str, str]]:
    recipe, changes = on_card(loaded(**sections).recipe, to, tried)
    assert all(change.reason for change in changes)
    return recipe, {change.field: change.value for change in changes}


def test_a_pool_that_was_sized_for_one_card_is_left_open_on_another() -> None:
    recipe, changes = moved("h100")
    assert recipe.hardware == "h100"
    assert changes == {"hardware": "h100", "serving.kv_cache_tokens": "null"}
    plan = tried(recipe)
    assert plan is not None
    assert plan.serving.kv_cache_tokens == 16 * 4096 + 32


def test_formats_stay_where_the_card_takes_them() -> None:
    recipe, _ = moved("a100-80g", quantization={"weights": "int4_awq"})
    assert recipe.quantization.weights == "int4_awq"


def test_a_type_that_the_other_card_lacks_is_replaced_by_one_that_it_has() -> None:
    recipe, changes = moved("rtx3090")
    assert recipe.quantization.kv_cache_dtype != "fp8"
    assert changes["quantization.kv_cache_dtype"] == recipe.quantization.kv_cache_dtype
    assert recipe.quantization.weights == "int8_wo"
    assert tried(recipe) is not None


def test_what_does_not_fit_the_other_card_is_replaced_by_what_does() -> None:
    recipe, changes = moved("rtx4090", quantization={"weights": "full_prec"}, hardware="a100-80g")
    assert changes["quantization.weights"] == recipe.quantization.weights
    plan = tried(recipe)
    assert plan is not None
    assert plan.fits


def test_an_impossible_move_comes_back_for_the_plan_to_refuse() -> None:
    recipe, changes = moved("cpu")
    assert changes["hardware"] == "cpu"
    assert recipe.quantization == loaded().recipe.quantization
    assert tried(recipe) is None


def test_a_card_without_bfloat16_and_paged_context_attention_gets_the_recipe_without_them() -> None:
    recipe, changes = moved(
        "t4",
        model={"source": "hf:meta-llama/Llama-2-13b-chat-hf", "dtype": "bfloat16"},
        quantization={"weights": "fp8", "kv_cache_dtype": "fp8"},
        serving={"kv_cache_reuse": True, "chunked_context": True},
        limits={"max_batch_size": 1, "max_input_len": 900, "max_seq_len": 1024, "max_num_tokens": 512},
    )
    assert changes["model.dtype"] == "float16"
    assert changes["serving.kv_cache_reuse"] == changes["serving.chunked_context"] == "False"
    assert changes["limits.max_num_tokens"] == "900"
    plan = tried(recipe)
    assert plan is not None
    assert plan.fits

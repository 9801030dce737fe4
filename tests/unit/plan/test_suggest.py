from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from scalellm_trt.plan import Objective, Suggestion, outlook, suggest, try_plan
from scalellm_trt.plan.suggest import BATCH_SIZES
from tests.fakes import planning
from tests.fakes.gpu_planning import LLAMA2_13B, MODEL, loaded, make

if TYPE_CHECKING:
    from scalellm_trt.plan import Plan
    from scalellm_trt.recipe import Recipe


def tried(recipe: Recipe) -> Plan | None:
    return try_plan(dataclasses.replace(loaded(), recipe=recipe), MODEL, LLAMA2_13B, planning.MACHINE)


def suggested(objective: Objective = "throughput", **sections: Any) -> Suggestion | None:
    return suggest(loaded(**sections).recipe, tried, objective=objective, prompt=512, max_tokens=256)


def test_the_suggested_limits_fit_and_beat_the_recipes_own() -> None:
    found = suggested()
    assert found is not None
    assert found.plan.fits
    assert found.outlook.speed is not None
    own = outlook(make()).speed
    assert own is not None
    assert found.outlook.speed.batches[-1].output_tokens_per_s > own.batches[-1].output_tokens_per_s


def test_no_candidate_of_the_search_is_better_by_more_than_a_percent() -> None:
    found = suggested()
    assert found is not None
    assert found.outlook.speed is not None
    best = found.outlook.speed.batches[-1].output_tokens_per_s
    recipe = loaded().recipe
    for batch in BATCH_SIZES:
        limits = recipe.limits.model_copy(update={"max_batch_size": batch})
        serving = recipe.serving.model_copy(update={"kv_cache_tokens": None})
        plan = tried(recipe.model_copy(update={"limits": limits, "serving": serving}))
        assert plan is not None
        speed = outlook(plan).speed
        assert speed is not None
        assert speed.batches[-1].output_tokens_per_s <= best * 1.011


def test_the_fragment_is_what_a_recipe_takes_and_plans_to_the_same_limits() -> None:
    found = suggested()
    assert found is not None
    sections = yaml.safe_load(found.fragment())
    plan = make(**sections)
    assert (plan.limits, plan.serving) == (found.plan.limits, found.plan.serving)


def test_the_threshold_cuts_off_what_is_too_slow() -> None:
    assert suggested(slo={"ttft_ms": 100}) is None
    found = suggested(slo={"ttft_ms": 130})
    assert found is not None
    assert "TTFT within 130 ms" in found.objective


def test_a_limit_of_the_time_per_token_leaves_smaller_batches() -> None:
    fastest, limited = suggested(), suggested(slo={"tpot_ms": 25})
    assert fastest is not None
    assert limited is not None
    assert limited.plan.limits.max_batch_size < fastest.plan.limits.max_batch_size
    assert limited.outlook.speed is not None
    most = limited.outlook.speed.batches[-1].tpot_ms
    assert most is not None
    assert most <= 25
    assert ", TPOT within 25 ms;" in limited.objective
    assert suggested(slo={"tpot_ms": 15}) is None
    both = suggested(slo={"ttft_ms": 130, "tpot_ms": 25})
    assert both is not None
    assert "TTFT within 130 ms and TPOT within 25 ms" in both.objective


def test_the_objective_sequences_maximises_the_pool() -> None:
    most, fastest = suggested("sequences"), suggested()
    assert most is not None
    assert fastest is not None
    assert most.outlook.pool.sequences >= fastest.outlook.pool.sequences
    assert most.outlook.pool.sequences == 5  # what the card holds; int8_wo with an FP8 cache takes no chunks


def test_chunks_are_suggested_where_the_formats_take_them() -> None:
    found = suggested(quantization={"weights": "fp8", "kv_cache_dtype": "fp8"})
    assert found is not None
    assert found.plan.serving.chunked_context
    assert found.plan.limits.max_num_tokens == 1024


def test_nothing_is_suggested_where_no_limits_fit() -> None:
    assert suggested(quantization={"weights": "full_prec"}) is None


@pytest.mark.parametrize("objective", ["throughput", "sequences"])
def test_a_processor_gets_limits_too(objective: Objective) -> None:
    recipe = planning.loaded().recipe

    def try_here(candidate: Recipe) -> Plan | None:
        holder = dataclasses.replace(planning.loaded(), recipe=candidate)
        return try_plan(holder, planning.MODEL, planning.SMOLLM2, planning.MACHINE)

    found = suggest(recipe, try_here, objective=objective, prompt=512, max_tokens=256)
    assert found is not None
    assert found.plan.fits
    assert found.plan.limits.max_batch_size >= recipe.limits.max_batch_size

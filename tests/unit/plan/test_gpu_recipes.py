"""What the shipped GPU recipes promise, to the byte."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from scalellm_trt import recipe
from tests.fakes.planning import SERVER, make_gpu, plan_of

if TYPE_CHECKING:
    from scalellm_trt.plan import Plan

RECIPES = Path(__file__).parents[3] / "recipes"


def bytes_per_token(plan: Plan) -> float:
    return plan.serving.kv_cache_bytes / plan.serving.kv_cache_tokens


@pytest.mark.parametrize(
    ("name", "num_bytes"),
    [("rtx4090", 409_600), ("rtx4090-fp8", 409_600), ("a100-3x", 409_600), ("a100-3x-fp16kv", 819_200),
     ("t4", 819_200), ("t4-int8kv", 409_600), ("rtx4090-open", 57_344), ("mixtral-8x7b-h100-tp", 8_192)],
)  # fmt: skip
def test_a_token_of_the_kv_cache_takes_these_bytes(name: str, num_bytes: int) -> None:
    assert bytes_per_token(plan_of(RECIPES / f"{name}.yaml", SERVER)) == num_bytes


def test_a_16_bit_cache_takes_twice_as_many_on_the_4090() -> None:
    auto: dict[str, Any] = {"weights": "int8_wo", "kv_cache_dtype": "auto"}
    assert bytes_per_token(make_gpu(quantization=auto, serving={"kv_cache_tokens": 8192})) == 819_200


@pytest.mark.parametrize(
    ("name", "tokens"),
    [("rtx4090", 20_480), ("rtx4090-fp8", 20_480), ("l4", 16_384), ("a100-3x", 40_960), ("a100-3x-fp16kv", 20_480),
     ("rtx3090", 18_432), ("t4", 6_144)],
)  # fmt: skip
def test_the_pool_of_a_service_is_absolute_and_in_whole_blocks(name: str, tokens: int) -> None:
    plan = plan_of(RECIPES / f"{name}.yaml", SERVER)
    assert plan.serving.kv_cache_tokens == tokens
    assert tokens % plan.serving.tokens_per_block == 0
    assert tokens >= plan.limits.max_seq_len + plan.serving.tokens_per_block


def test_three_services_hold_a_4k_sequence_each() -> None:
    for name in ("a100-3x", "a100-3x-fp16kv"):
        plan = plan_of(RECIPES / f"{name}.yaml", SERVER)
        assert plan.services == 3
        assert plan.serving.kv_cache_tokens >= 4096


def test_every_card_of_the_issue_has_a_recipe() -> None:
    names = {path.stem: recipe.load(path).recipe.hardware for path in RECIPES.glob("*.yaml")}
    assert {"rtx4090", "a100-80g", "l4", "t4", "rtx3090", "h100", "cpu"} <= set(names.values())
    assert names["rtx4090-open"] == "rtx4090"


def test_engines_take_sequences_of_4k_but_for_the_t4() -> None:
    lengths = {path.stem: recipe.load(path).recipe.limits.max_seq_len for path in RECIPES.glob("*.yaml")}
    others = {name: length for name, length in lengths.items() if not name.startswith(("cpu", "t4", "mixtral"))}
    assert set(others.values()) == {4096}
    assert lengths["t4"] == 2048


def test_a_pool_without_a_spare_block_is_refused_on_a_gpu() -> None:
    from scalellm_trt.errors import UnsupportedError

    with pytest.raises(UnsupportedError, match="1 spare block of 32"):
        make_gpu(serving={"kv_cache_tokens": 4096})

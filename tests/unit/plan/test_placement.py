from __future__ import annotations

from typing import Any

import pytest

from scalellm_trt.errors import UnsupportedError
from tests.fakes.planning import make_gpu


def refusal(**sections: Any) -> str:
    with pytest.raises(UnsupportedError) as caught:
        make_gpu(**sections)
    return str(caught.value)


def reason(field: str, **sections: Any) -> tuple[str, bool]:
    decisions = [decision for decision in make_gpu(**sections).decisions if decision.field == field]
    return decisions[0].reason, decisions[0].is_warning


def test_ranks_on_cards_without_direct_copies_are_said_to_be_slow() -> None:
    two = {"tp_size": 2}
    text, is_warning = reason("parallel.tp_size", parallel=two)
    assert "goes through host memory" in text
    assert is_warning
    text, is_warning = reason("parallel.tp_size", parallel=two, hardware="h100")
    assert text == "ranks talk over NVLink 4, 450 GB/s per direction"
    assert not is_warning


def test_the_world_is_the_product_of_both_sizes() -> None:
    plan = make_gpu(hardware="h100", parallel={"tp_size": 4, "pp_size": 2})
    assert plan.world_size == 8
    assert "more than the 8 rank(s)" in refusal(hardware="h100", parallel={"tp_size": 8, "pp_size": 2})


@pytest.mark.parametrize(
    ("parallel", "message"),
    [
        ({"tp_size": 3}, "3 ranks do not share 40 attention heads, 40 KV heads"),
        ({"pp_size": 3}, "3 ranks do not share 40 layers evenly"),
    ],
)
def test_ranks_that_do_not_divide_the_model_are_refused(parallel: dict[str, int], message: str) -> None:
    found = refusal(hardware="h100", parallel=parallel, quantization={"weights": "int8_wo"})
    assert message in found


def test_copies_with_several_ranks_each_are_refused() -> None:
    assert "same MPI world" in refusal(hardware="h100", services=2, parallel={"tp_size": 2})


def test_copies_on_one_card_are_said_to_share_it() -> None:
    text, _ = reason("services", hardware="a100-80g", services=3, serving={"kv_cache_tokens": 8192})
    assert "3 engines in one server" in text
    assert "(estimate)" in text

from __future__ import annotations

import re
from typing import Any

import pytest

from scalellm_trt.plan import DoesNotFitError
from tests.fakes.gpu_planning import RTX4090, make
from tests.fakes.planning import GIB

FULL = {"weights": "full_prec"}


def refused(**sections: Any) -> DoesNotFitError:
    with pytest.raises(DoesNotFitError) as caught:
        make(**sections)
    return caught.value


def first_suggestion(error: DoesNotFitError) -> tuple[str, str]:
    found = re.search(r"Try: ([a-z_.]+): (\w+) \(", str(error.problems[0].hint))
    assert found is not None, error.problems[0].hint
    return found.group(1), found.group(2)


def test_16_bit_weights_of_a_13b_do_not_fit_a_4090_and_the_first_suggestion_does() -> None:
    error = refused(quantization=FULL, serving={})
    message = error.problems[0].message
    assert "does not fit: serve takes CUDA context" in message
    assert "weights 24.2 GiB" in message
    assert message.endswith("> 23.6 GiB of the card")
    key, value = first_suggestion(error)
    assert (key, value) == ("quantization.weights", "int8_wo")
    plan = make(quantization={"weights": value}, serving={})
    assert plan.fits
    assert "quantization.weights: int8_wo (weights 12.4 GiB)" in str(error.problems[0].hint)


def test_more_cards_are_suggested_with_what_each_then_holds() -> None:
    hint = str(refused(quantization=FULL, serving={}).problems[0].hint)
    found = re.search(r"parallel\.tp_size: 2 \(weights (12\.\d) GiB on each of 2 cards\)", hint)
    assert found, hint
    assert make(quantization=FULL, serving={}, parallel={"tp_size": 2}).fits


def test_the_error_keeps_the_plan_so_that_its_budgets_can_be_shown() -> None:
    plan = refused(quantization=FULL, serving={}).plan
    assert not plan.fits
    serve = next(budget for budget in plan.budgets if (budget.stage, budget.place) == ("serve", "device"))
    assert serve.item_bytes("weights") / GIB == pytest.approx(24.24, abs=0.01)


def test_a_pool_that_is_too_large_is_lowered_to_the_largest_that_fits() -> None:
    error = refused(serving={"kv_cache_tokens": 40_000})
    key, value = first_suggestion(error)
    assert key == "serving.kv_cache_tokens"
    assert error.problems[0].key == "serving.kv_cache_tokens"
    assert make(serving={"kv_cache_tokens": int(value)}).fits
    assert not refused(serving={"kv_cache_tokens": int(value) + 32}).plan.fits


def test_fewer_services_are_suggested_where_that_is_what_helps() -> None:
    hint = str(refused(services=2, serving={"kv_cache_tokens": 8192}).problems[0].hint)
    assert "services: 1" in hint
    assert make(services=1, serving={"kv_cache_tokens": 8192}).fits


def test_a_pair_is_suggested_where_no_single_change_is_enough() -> None:
    wide = RTX4090 | {"max_batch_size": 64}
    sections: dict[str, Any] = {
        "hardware": "t4",
        "toolchain": "tensorrt-llm-0.13.0",
        "limits": wide,
        "serving": {},
    }
    error = refused(quantization=FULL, **sections)
    hint = str(error.problems[0].hint)
    found = re.search(r"Try: quantization\.weights: int4_wo with limits\.max_input_len: (\d+) \(attention", hint)
    assert found, hint
    limits = wide | {"max_input_len": int(found.group(1))}
    assert make(quantization={"weights": "int4_wo"}, **(sections | {"limits": limits})).fits


def test_memory_of_a_machine_without_the_card_refuses_nothing() -> None:
    plan = make()
    short = [budget for budget in plan.budgets if not budget.fits]
    assert [(budget.stage, budget.place) for budget in short] == [("compile", "host")]
    assert plan.fits


def test_one_service_and_smaller_limits_are_suggested_where_neither_alone_is_enough() -> None:
    sections = {"quantization": FULL, "limits": RTX4090 | {"max_batch_size": 2000}, "serving": {}}
    hint = str(refused(services=3, **sections).problems[0].hint)
    assert "services: 1 with quantization.weights: " in hint

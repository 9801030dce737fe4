from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Any

import pytest

from scalellm_trt.errors import Problem, UnsupportedError
from scalellm_trt.plan import Plan, disk_problem
from scalellm_trt.plan.changes import suggestions
from tests.fakes.planning import GIB, MACHINE, loaded, make

if TYPE_CHECKING:
    from scalellm_trt.recipe import Recipe

LARGE = {"max_batch_size": 64, "max_seq_len": 2048, "max_num_tokens": 2048}
SMALL_MACHINE = dataclasses.replace(MACHINE, memory_total_bytes=2 * GIB)


def refused(machine: Any = SMALL_MACHINE, **sections: Any) -> Problem:
    with pytest.raises(UnsupportedError) as caught:
        make(machine, **sections)
    (problem,) = caught.value.problems
    return problem


def suggested(problem: Problem) -> dict[str, str]:
    return dict(re.findall(r"([a-z_.]+): (\w+) \(", str(problem.hint)))


def test_what_does_not_fit_is_itemised_against_what_is_usable() -> None:
    problem = refused(limits=LARGE)
    assert problem.message.startswith("does not fit: serve takes tritonserver 48.0 MiB + ")
    assert "KV cache 2.8 GiB" in problem.message
    assert problem.message.endswith("> 1.5 GiB usable of 2.0 GiB")


def test_each_suggested_change_alone_makes_it_fit_and_is_the_smallest() -> None:
    found = suggested(refused(limits=LARGE))
    batch = int(found["limits.max_batch_size"])
    assert make(SMALL_MACHINE, limits=LARGE | {"max_batch_size": batch})
    assert refused(limits=LARGE | {"max_batch_size": batch + 1})
    length = int(found["limits.max_seq_len"])
    assert make(SMALL_MACHINE, limits=LARGE | {"max_seq_len": length})
    # The pool grows by whole blocks of 32 tokens.
    assert refused(limits=LARGE | {"max_seq_len": length + 32})


def test_a_suggested_length_still_holds_the_written_prompt_length() -> None:
    machine = dataclasses.replace(MACHINE, memory_total_bytes=int(3.4 * GIB))
    limits = LARGE | {"max_input_len": 1500}
    length = int(suggested(refused(machine, limits=limits))["limits.max_seq_len"])
    assert 1500 < length < 2048
    assert make(machine, limits=limits | {"max_seq_len": length})


def test_a_written_kv_budget_is_lowered_but_never_below_one_sequence() -> None:
    problem = refused(limits=LARGE, serving={"kv_cache_tokens": 100_000})
    tokens = int(suggested(problem)["serving.kv_cache_tokens"])
    assert 2048 <= tokens < 100_000
    assert make(SMALL_MACHINE, limits=LARGE, serving={"kv_cache_tokens": tokens})


def test_narrower_formats_are_suggested_where_they_are_enough() -> None:
    machine = dataclasses.replace(MACHINE, memory_total_bytes=int(1.25 * GIB))
    found = suggested(refused(machine, quantization={"weights": "full_prec"}))
    assert found["quantization.weights"] == "int8_wo"
    assert make(machine, quantization={"weights": "int8_wo"})


def test_an_8_bit_cache_is_suggested_where_it_is_enough() -> None:
    limits = {"max_batch_size": 26, "max_seq_len": 2048, "max_num_tokens": 2048}
    machine = dataclasses.replace(MACHINE, memory_total_bytes=int(2.1 * GIB))
    problem = refused(machine, limits=limits)
    assert "quantization.kv_cache_dtype: int8 (KV cache 694.7 MiB)" in str(problem.hint)


def test_the_most_services_that_fit_are_suggested() -> None:
    def try_plan(recipe: Recipe) -> Plan | None:
        plan = make()
        budgets = [dataclasses.replace(b, available_bytes=b.total_bytes - (recipe.services > 2)) for b in plan.budgets]
        return dataclasses.replace(plan, budgets=tuple(budgets))

    recipe = loaded().recipe.model_copy(update={"services": 4})
    assert list(suggestions(recipe, try_plan)) == ["services: 2"]


def test_a_machine_that_is_too_small_for_any_single_change_is_told_what_it_takes() -> None:
    tiny = dataclasses.replace(MACHINE, memory_total_bytes=GIB // 2)
    assert re.search(r"No single change is enough; it takes 1\.\d GiB", str(refused(tiny).hint))


def test_the_problem_points_at_the_key_that_its_largest_item_follows_from() -> None:
    assert refused(limits=LARGE).key == "limits.max_batch_size"
    assert refused(limits=LARGE, serving={"kv_cache_tokens": 100_000}).key == "serving.kv_cache_tokens"
    tiny = dataclasses.replace(MACHINE, memory_total_bytes=GIB)
    limits = {"max_batch_size": 1, "max_seq_len": 64, "max_num_tokens": 64}
    assert refused(tiny, limits=limits, quantization={"weights": "full_prec"}).key == "quantization.weights"


def test_a_full_disk_stops_the_stages_that_write_but_not_the_plan() -> None:
    plan = make(dataclasses.replace(MACHINE, disk_free_bytes=200 << 20))
    quantize = disk_problem(plan, "quantize")
    assert quantize is not None
    assert "checkpoint 310.6 MiB" in quantize.message
    assert disk_problem(plan, "compile") is None
    assert disk_problem(plan, "assemble") is None

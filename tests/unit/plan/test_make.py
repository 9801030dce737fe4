from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest

from scalellm_trt.errors import Problem, UnsupportedError
from tests.fakes.planning import GIB, MACHINE, make

if TYPE_CHECKING:
    from scalellm_trt.plan import Plan


def problems(**sections: Any) -> list[Problem]:
    with pytest.raises(UnsupportedError) as caught:
        make(**sections)
    return list(caught.value.problems)


def reason(plan: Plan, field: str) -> str:
    return next(decision.reason for decision in plan.decisions if decision.field == field)


def test_everything_left_open_is_decided_with_a_reason() -> None:
    plan = make()
    assert plan.toolchain == "openvino-2026.4"
    assert plan.quantization.kv_cache_dtype == "float16"
    assert plan.quantization.group_size is None
    assert plan.quantization.calibration is None
    assert plan.limits.max_input_len == 1023
    assert plan.serving.kv_cache_tokens == 4 * 1024
    assert {decision.field for decision in plan.decisions} >= {
        "toolchain", "quantization.kv_cache_dtype", "quantization.group_size", "limits.max_input_len",
        "serving.kv_cache_tokens", "serving.chunked_context", "limits.max_num_tokens",
    }  # fmt: skip
    assert all(decision.reason for decision in plan.decisions)


def test_an_8_bit_kv_cache_is_planned_with_its_overhead() -> None:
    plan = make(quantization={"weights": "int8_wo", "kv_cache_dtype": "int8"})
    assert plan.quantization.kv_cache_dtype == "int8"
    assert plan.serving.kv_cache_bytes == 4096 * 13_680


def test_the_kv_pool_is_rounded_up_to_whole_blocks() -> None:
    plan = make(serving={"kv_cache_tokens": 1025})
    assert (plan.serving.kv_cache_tokens, plan.serving.tokens_per_block) == (1056, 32)
    assert plan.serving.kv_cache_bytes == 1056 * 23_040


def test_a_kv_pool_below_one_sequence_is_refused_with_the_smallest_that_works() -> None:
    (problem,) = problems(serving={"kv_cache_tokens": 512})
    assert problem.key == "serving.kv_cache_tokens"
    assert "at least 1024" in str(problem.hint)


def test_a_sequence_beyond_the_models_positions_is_refused_at_its_line() -> None:
    limits = {"max_batch_size": 1, "max_seq_len": 8193, "max_num_tokens": 8193}
    (problem,) = problems(limits=limits)
    assert str(problem).startswith("recipes/x.yaml:7: limits.max_seq_len: 8193 is more than the 8192")


def test_a_prompt_that_leaves_no_room_for_an_answer_is_refused() -> None:
    (problem,) = problems(limits={"max_seq_len": 512, "max_input_len": 512})
    assert problem.key == "limits.max_input_len"


def test_a_step_that_cannot_hold_the_longest_prompt_needs_chunked_context() -> None:
    limits = {"max_seq_len": 1024, "max_num_tokens": 256}
    (problem,) = problems(limits=limits)
    assert problem.key == "limits.max_num_tokens"
    assert "chunked_context: true" in str(problem.hint)
    assert make(limits=limits, serving={"chunked_context": True}).serving.chunked_context


def test_a_step_smaller_than_the_batch_is_refused() -> None:
    limits = {"max_batch_size": 64, "max_seq_len": 1024, "max_num_tokens": 32}
    (problem,) = problems(limits=limits, serving={"chunked_context": True})
    assert "at least 64" in str(problem.hint)


def test_a_plan_says_how_long_a_prefill_step_stalls_the_others_and_that_it_is_an_estimate() -> None:
    text = reason(make(), "limits.max_num_tokens")
    assert "about 3.1 s" in text
    assert "estimate" in text
    faster = dataclasses.replace(MACHINE, num_usable_cores=16)
    assert "about 0.4 s" in reason(make(faster), "limits.max_num_tokens")


def test_awq_gets_at_most_32_samples_and_a_group_size_that_divides() -> None:
    plan = make(quantization={"weights": "int4_awq", "group_size": 64})
    assert plan.quantization.group_size == 64
    assert plan.quantization.calibration is not None
    assert plan.quantization.calibration.num_samples == 32


def test_a_group_size_that_does_not_divide_is_refused_with_those_that_do() -> None:
    (problem,) = problems(quantization={"weights": "int4_awq"})
    assert "128 does not divide the model's hidden_size 576" in problem.message
    assert str(problem.hint) == "Allowed here: 16, 24, 32, 48, 64, 96, 192."


@pytest.mark.parametrize("weights", ["fp8", "nvfp4", "w4a8_awq", "int8_sq"])
def test_formats_of_other_hardware_are_refused_with_the_reason_and_the_allowed_ones(weights: str) -> None:
    (problem,) = problems(quantization={"weights": weights})
    assert problem.key == "quantization.weights"
    assert "full_prec, int8_wo, int4_wo, int4_awq" in str(problem.hint)


def test_unknown_names_are_answered_with_the_nearest_known_one() -> None:
    (toolchain,) = problems(toolchain="openvino-2026.5")
    (hardware,) = problems(hardware="gpu")
    assert "Nearest: openvino-2026.4." in str(toolchain.hint)
    assert "Allowed here: cpu, t4, l4" in str(hardware.hint)


def test_a_backend_without_a_toolchain_on_this_hardware_is_refused() -> None:
    found = problems(backend="tensorrt_llm")
    assert "backend" in {problem.key for problem in found}


def test_all_problems_are_reported_at_once() -> None:
    found = problems(
        toolchain="nope",
        quantization={"weights": "fp8", "kv_cache_dtype": "fp8"},
        limits={"max_batch_size": 1, "max_seq_len": 9000, "max_num_tokens": 9000},
    )
    assert [problem.key for problem in found] == [
        "toolchain", "quantization.weights", "quantization.kv_cache_dtype", "limits.max_seq_len"
    ]  # fmt: skip


def test_ranks_are_refused_where_the_toolchain_has_one() -> None:
    (problem,) = problems(parallel={"tp_size": 2})
    assert problem.key == "parallel.tp_size"


def test_copies_are_refused_where_one_fills_the_machine() -> None:
    (problem,) = problems(services=3)
    assert str(problem).startswith("recipes/x.yaml:7: services: 3 copies")


def test_an_occupied_machine_does_not_refuse_what_fits_into_its_memory() -> None:
    busy = dataclasses.replace(MACHINE, memory_available_bytes=GIB // 4, disk_free_bytes=0)
    assert make(busy).name == "smollm2-cpu"

from __future__ import annotations

import dataclasses
import fnmatch
import json
from typing import Any

import pytest

from scalellm_trt import facts
from scalellm_trt.plan import flatten, plan_digest, stage_inputs, stage_names, to_json
from tests.fakes.planning import GIB, MACHINE, make

# Keys that change nothing that is written: where the model came from, which its digest says better.
TOLD_TO_PEOPLE_ONLY = {"model.source", "model.revision"}


def changed_stages(**sections: Any) -> list[str]:
    before, after = make(), make(**sections)
    return [stage for stage in stage_names(before) if stage_inputs(before, stage) != stage_inputs(after, stage)]


@pytest.mark.parametrize(
    ("sections", "stages"),
    [
        ({"limits": {"max_batch_size": 8, "max_seq_len": 1024, "max_num_tokens": 1024}}, ["assemble"]),
        ({"limits": {"max_batch_size": 4, "max_seq_len": 512, "max_num_tokens": 1024}}, ["assemble"]),
        ({"serving": {"kv_cache_reuse": True}}, ["assemble"]),
        ({"serving": {"kv_cache_tokens": 2048}}, ["assemble"]),
        ({"quantization": {"weights": "int8_wo", "kv_cache_dtype": "int8"}}, ["assemble"]),
        ({"name": "other"}, ["assemble"]),
        ({"quantization": {"weights": "int4_wo"}}, ["quantize", "compile"]),
        ({"model": {"source": "hf:x/y", "dtype": "bfloat16"}}, ["quantize"]),
        ({"slo": {"ttft_ms": 500.0}}, []),
        ({"slo": {"tpot_ms": 25.0}}, []),
    ],
)
def test_a_changed_key_changes_the_inputs_of_the_stages_that_depend_on_it(
    sections: dict[str, Any], stages: list[str]
) -> None:
    assert changed_stages(**sections) == stages


def test_the_end_of_an_answer_is_part_of_the_service() -> None:
    before = make()
    after = dataclasses.replace(before, spec=dataclasses.replace(before.spec, eos_token_ids=(2, 5)))
    assert stage_inputs(after, "assemble")["model.eos_token_ids"] == "2,5"
    assert stage_inputs(before, "compile") == stage_inputs(after, "compile")


def test_calibration_is_part_of_quantize() -> None:
    awq = {"weights": "int4_awq", "group_size": 64}
    plans = [make(quantization=awq | {"calibration": {"seed": seed}}) for seed in (1, 2)]
    keys = [stage_inputs(plan, "quantize")["quantization.calibration.seed"] for plan in plans]
    assert keys == [1, 2]
    assert stage_inputs(plans[0], "compile") == stage_inputs(plans[1], "compile")


def test_samples_beyond_what_awq_looks_at_change_nothing() -> None:
    awq = {"weights": "int4_awq", "group_size": 64}
    plans = [make(quantization=awq | {"calibration": {"num_samples": n}}) for n in (100, 512)]
    assert plan_digest(plans[0]) == plan_digest(plans[1])


def test_every_key_of_a_plan_belongs_to_a_stage_and_every_pattern_matches_a_key() -> None:
    plans = [make(), make(quantization={"weights": "int4_awq", "group_size": 64})]
    keys = {key for plan in plans for key in flatten(plan)}
    for toolchain in facts.toolchains().values():
        patterns = {pattern for stage in toolchain.stages.values() for pattern in stage}
        unclaimed = {key for key in keys if not any(fnmatch.fnmatchcase(key, pattern) for pattern in patterns)}
        assert unclaimed == TOLD_TO_PEOPLE_ONLY
        assert all(fnmatch.filter(keys, pattern) for pattern in patterns)


def test_the_digest_and_the_json_of_a_plan_do_not_depend_on_what_is_free_now() -> None:
    busy = dataclasses.replace(MACHINE, memory_available_bytes=GIB, disk_free_bytes=GIB)
    assert plan_digest(make()) == plan_digest(make(busy))
    assert to_json(make()) == to_json(make(busy))


def test_the_digest_changes_with_any_resolved_value() -> None:
    assert plan_digest(make()) != plan_digest(make(serving={"max_queue_size": 7}))


def test_json_holds_the_digest_the_budgets_and_the_decisions() -> None:
    plan = make(quantization={"weights": "int4_awq", "group_size": 64})
    body = json.loads(to_json(plan))
    assert body["digest"] == plan_digest(plan)
    assert body["budgets"][3]["stage"] == "serve"
    assert body["budgets"][3]["fits"] is True
    assert body["budgets"][3]["total_bytes"] == plan.budgets[3].total_bytes
    assert body["quantization"]["calibration"]["num_samples"] == 32
    assert any(decision["field"] == "limits.max_num_tokens" for decision in body["decisions"])

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from scalellm_trt.recipe.rules import RULES, violations
from scalellm_trt.recipe.schema import Recipe

if TYPE_CHECKING:
    from collections.abc import Mapping

SHA = "0" * 64


def broken(changes: Mapping[str, object]) -> list[str]:
    """Dotted keys at which a recipe with these changes breaks a rule; all written keys count as written."""
    values = {"name": "a", "hardware": "cpu", "model": {"source": "./m"}, **changes}
    written = {(name,) for name in values} | {
        (name, key) for name, below in values.items() if isinstance(below, dict) for key in below
    }
    found = violations(Recipe.model_validate(values), written, bad=())
    return [".".join(violation.path) for violation in found]


def test_the_defaults_break_no_rule() -> None:
    assert broken({}) == []


@pytest.mark.parametrize(("max_input_len", "is_broken"), [(4095, False), (4096, True), (5000, True)])
def test_a_prompt_leaves_room_for_an_answer(max_input_len: int, is_broken: bool) -> None:
    limits = {"max_input_len": max_input_len, "max_seq_len": 4096, "max_num_tokens": 8192}
    assert broken({"limits": limits}) == ["limits.max_input_len"] * is_broken


def test_a_sequence_of_one_token_is_no_sequence() -> None:
    assert broken({"limits": {"max_seq_len": 1}}) == ["limits.max_seq_len"]


@pytest.mark.parametrize(
    ("limits", "chunked", "is_broken"),
    [
        ({"max_num_tokens": 4095}, False, False),
        ({"max_num_tokens": 4094}, False, True),
        ({"max_num_tokens": 4094}, True, False),
        ({"max_num_tokens": 1024, "max_input_len": 1024}, False, False),
        ({"max_num_tokens": 1023, "max_input_len": 1024}, False, True),
    ],
)
def test_without_chunked_context_a_step_holds_the_longest_prompt(
    limits: dict[str, int], chunked: bool, is_broken: bool
) -> None:
    assert broken({"limits": limits, "serving": {"chunked_context": chunked}}) == ["limits.max_num_tokens"] * is_broken


@pytest.mark.parametrize(("max_batch_size", "is_broken"), [(256, False), (257, True)])
def test_a_step_holds_a_token_of_every_sequence(max_batch_size: int, is_broken: bool) -> None:
    limits = {"max_num_tokens": 256, "max_batch_size": max_batch_size}
    assert broken({"limits": limits, "serving": {"chunked_context": True}}) == ["limits.max_num_tokens"] * is_broken


@pytest.mark.parametrize(("tokens", "is_broken"), [(4096, False), (4095, True)])
def test_the_pool_holds_one_whole_sequence(tokens: int, is_broken: bool) -> None:
    assert broken({"serving": {"kv_cache_tokens": tokens}}) == ["serving.kv_cache_tokens"] * is_broken


@pytest.mark.parametrize(
    ("source", "sha256", "is_broken"),
    [
        ("pypi:p==1/f.gguf", SHA, False),
        ("pypi:p==1/f.gguf", None, True),
        ("gguf:f.gguf", SHA, False),
        ("gguf:f.gguf", None, False),
        ("hf:org/name@main", None, False),
        ("hf:org/name@main", SHA, True),
        ("./m", SHA, True),
    ],
)
def test_a_digest_is_written_for_single_files(source: str, sha256: str | None, is_broken: bool) -> None:
    assert broken({"model": {"source": source, "sha256": sha256}}) == ["model.sha256"] * is_broken


@pytest.mark.parametrize(
    ("weights", "is_broken"),
    [("int4_awq", False), ("w4a8_awq", False), ("int8_wo", True), ("full_prec", True), ("nvfp4", True), ("fp8", True)],
)
def test_a_group_size_is_written_for_awq_only(weights: str, is_broken: bool) -> None:
    found = broken({"quantization": {"weights": weights, "group_size": 64}})
    assert found == ["quantization.group_size"] * is_broken


@pytest.mark.parametrize(
    ("weights", "kv_cache_dtype", "backend", "is_broken"),
    [
        ("int4_awq", "auto", "openvino", False),
        ("fp8", "auto", "tensorrt_llm", False),
        ("int8_wo", "auto", "tensorrt_llm", True),
        ("int8_wo", "int8", "tensorrt_llm", False),
        ("int8_wo", "int8", "openvino", True),
        ("full_prec", "auto", "openvino", True),
    ],
)
def test_calibration_is_written_only_where_something_is_calibrated(
    weights: str, kv_cache_dtype: str, backend: str, is_broken: bool
) -> None:
    quantization = {"weights": weights, "kv_cache_dtype": kv_cache_dtype, "calibration": {"seed": 1}}
    found = broken({"quantization": quantization, "backend": backend})
    assert found == ["quantization.calibration"] * is_broken


def test_a_name_leaves_the_engine_models_of_others_alone() -> None:
    assert broken({"name": "a_engine"}) == ["name"]


def test_a_rule_is_left_out_when_a_key_or_section_that_it_reads_is_bad() -> None:
    recipe = Recipe.model_validate(
        {"name": "a", "hardware": "cpu", "model": {"source": "./m"}, "limits": {"max_seq_len": 1}}
    )
    assert list(violations(recipe, (), bad=[("limits",)])) == []
    assert list(violations(recipe, (), bad=[("limits", "max_seq_len")])) == []
    assert list(violations(recipe, (), bad=[("limits", "max_batch_size")])) != []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.check.__name__)
def test_every_rule_is_documented(rule: object) -> None:
    assert getattr(rule, "check").__doc__.count("\n") == 0  # noqa: B009

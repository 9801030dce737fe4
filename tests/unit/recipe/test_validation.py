from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    ProblemsOf = Callable[[str | bytes], list[str]]

MINIMAL = "name: a\nmodel: {source: ./m}\nhardware: cpu\n"


def test_a_value_outside_a_closed_set_is_answered_with_the_set_and_the_nearest(problems_of: ProblemsOf) -> None:
    assert problems_of(f"{MINIMAL}quantization:\n  kv_cache_dtype: fp4\n") == [
        "r.yaml:5: quantization.kv_cache_dtype: found 'fp4', expected one of auto, int8, fp8\n  Nearest: fp8."
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("services: 0", "found 0, expected a whole number from 1 to 2147483647"),
        ("services: 2147483648", "found 2147483648, expected a whole number from 1 to 2147483647"),
        ("services: 2.0", "found 2.0, expected a whole number from 1 to 2147483647"),
        ("services: true", "found true, expected a whole number from 1 to 2147483647"),
        ("services: '2'", "found '2', expected a whole number from 1 to 2147483647"),
        ("services:", "found nothing, expected a whole number from 1 to 2147483647"),
        ("services: [2]", "found a list, expected a whole number from 1 to 2147483647"),
        ("services: {a: 1}", "found a mapping, expected a whole number from 1 to 2147483647"),
        ("schema: 2", "found 2, expected 1"),
        ("schema: true", "found true, expected 1"),
        ("limits: 5", "found 5, expected a mapping"),
        ("limits:", "found nothing, expected a mapping"),
        ("backend: 5", "found 5, expected one of tensorrt_llm, llmapi, openvino"),
        ("serving: {chunked_context: 1}", "found 1, expected true or false"),
        ("slo: {ttft_ms: 0}", "found 0, expected a number above 0, or null"),
        ("slo: {tpot_ms: -1}", "found -1, expected a number above 0, or null"),
        ("toolchain: ''", "found '', expected the name of a row: letters, digits, dots, dashes, underscores, or null"),
        (
            "quantization: {weights: fp8, calibration: {source: c.txt}}",
            "found 'c.txt', expected bundled, file:PATH or dir:PATH",
        ),
    ],
)
def test_a_wrong_value_is_answered_with_what_was_found_and_expected(
    problems_of: ProblemsOf, line: str, message: str
) -> None:
    (problem,) = problems_of(f"{MINIMAL}{line}\n")
    assert problem.startswith("r.yaml:4: ")
    assert f": {message}\n" in problem


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("services: '2'", "Write it without quotes."),
        ("serving: {kv_cache_reuse: 'true'}", "Write it without quotes."),
        ("toolchain: 1.2", "If text is meant, quote it: '1.2'."),
        ("services: many", "Remove the line to get the default, 1."),
        ("serving: 5", "Indent its keys below it, or remove it to get the defaults."),
    ],
)
def test_the_hint_is_the_next_step(problems_of: ProblemsOf, line: str, hint: str) -> None:
    (problem,) = problems_of(f"{MINIMAL}{line}\n")
    assert problem.splitlines()[1].endswith(hint)


@pytest.mark.parametrize(
    ("line", "key", "hint"),
    [
        ("hardwear: cpu", "hardwear: is not a key of a recipe", "Did you mean hardware?"),
        ("extend: a.yaml", "extend: is not a key of a recipe", "Did you mean extends?"),
        ("limits: {max_batch: 2}", "limits.max_batch: is not a key of limits", "Did you mean max_batch_size?"),
        (
            "max_batch_size: 2",
            "max_batch_size: is not",
            "It belongs into another place: write max_batch_size below limits.",
        ),
        ("limits.max_batch_size: 2", "'limits.max_batch_size': is not", "write max_batch_size below limits."),
        ("parallel: {zzz: 2}", "parallel.zzz: is not a key of parallel", "Allowed here: tp_size, pp_size."),
        ('"a\\nb": 2', "'a\\nb': is not a key of a recipe", "Allowed here: schema, name, model,"),
    ],
)
def test_an_unknown_key_is_answered_with_the_nearest_known_one(
    problems_of: ProblemsOf, line: str, key: str, hint: str
) -> None:
    (problem,) = problems_of(f"{MINIMAL}{line}\n")
    assert problem.startswith(f"r.yaml:4: {key}")
    assert hint in problem


@pytest.mark.parametrize(
    ("name", "what"),
    [("quality", "quality gates"), ("bench", "load tests"), ("speculative", "speculative decoding"),
     ("lora", "LoRA adapters"), ("guided_decoding", "guided decoding (JSON schemas, grammars)"),
     ("tenants", "tenants")],
)  # fmt: skip
def test_a_reserved_name_is_refused_as_one_that_comes_later(problems_of: ProblemsOf, name: str, what: str) -> None:
    assert problems_of(f"{MINIMAL}{name}: {{}}\n") == [
        f"r.yaml:4: {name}: is reserved for a later version: this one has no {what}\n  Remove it for now."
    ]


def test_each_missing_key_is_explained(problems_of: ProblemsOf) -> None:
    first_lines = [problem.splitlines()[0] for problem in problems_of("schema: 1\nmodel: {dtype: float16}\n")]
    assert sorted(first_lines) == [
        "r.yaml: hardware: is missing",
        "r.yaml: name: is missing",
        "r.yaml:2: model.source: is missing",
    ]


@pytest.mark.parametrize("name", ["A", "a b", "-a", "ä", "a/b", "a" * 64, "'a\\n'"])
def test_a_name_that_is_no_folder_and_model_name_is_refused(problems_of: ProblemsOf, name: str) -> None:
    (problem,) = problems_of(f"name: {name}\nmodel: {{source: ./m}}\nhardware: cpu\n")
    assert problem.startswith("r.yaml:1: name: ")


@pytest.mark.parametrize(
    ("source", "hint"),
    [
        ("meta-llama/Llama-2", "Write hf:meta-llama/Llama-2 for a repository of the hub"),
        ("hf:name-only", "After hf: something is missing or misspelt."),
        ("hf:a/b@", "After hf: something is missing or misspelt."),
        ("pypi:p/f.gguf", "After pypi: something is missing or misspelt."),
        ("pypi:p==1/f.bin", "After pypi: something is missing or misspelt."),
        ("'gguf:'", "After gguf: something is missing or misspelt."),
        ("s3://bucket", "Write hf:"),
    ],
)
def test_a_source_outside_the_grammar_is_refused_with_its_nearest_form(
    problems_of: ProblemsOf, source: str, hint: str
) -> None:
    (problem,) = problems_of(f"name: a\nmodel:\n  source: {source}\nhardware: cpu\n")
    assert problem.startswith("r.yaml:3: model.source: found ")
    assert hint in problem


def test_a_bad_value_does_not_hide_broken_rules_between_other_keys(problems_of: ProblemsOf) -> None:
    text = "name: A\nmodel: 5\nlimits:\n  max_input_len: 9000\n  max_num_tokens: 010\nservices: yes\n"
    assert [problem.split(": ")[1] for problem in problems_of(text)] == [
        "hardware",
        "name",
        "model",
        "limits.max_input_len",
        "limits.max_num_tokens",
        "services",
    ]


def test_a_rule_says_nothing_about_a_key_that_is_bad_already(problems_of: ProblemsOf) -> None:
    (problem,) = problems_of(f"{MINIMAL}limits: {{max_input_len: 9000, max_seq_len: '4096'}}\n")
    assert "limits.max_seq_len" in problem


def test_a_list_of_problems_that_nobody_would_read_is_cut(problems_of: ProblemsOf) -> None:
    problems = problems_of(MINIMAL + "".join(f"k{number}: 1\n" for number in range(2000)))
    assert len(problems) == 51
    assert problems[-1].startswith("and 1950 more problems")


def test_a_list_of_structure_problems_is_cut_too(problems_of: ProblemsOf) -> None:
    assert len(problems_of(MINIMAL + "".join(f"k{number}: !x 1\n" for number in range(2000)))) == 51


def test_a_missing_section_is_answered_with_its_keys(problems_of: ProblemsOf) -> None:
    (problem,) = problems_of("name: a\nhardware: cpu\n")
    assert problem == "r.yaml: model: is missing\n  Write model: and below it source, sha256, dtype."

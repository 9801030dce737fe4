from __future__ import annotations

import pytest
import yaml

from scalellm_trt.recipe.plain_scalar import Ambiguity, resolve


def resolved(text: str) -> object:
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    assert isinstance(node, yaml.ScalarNode)
    return resolve(node.value, node.tag)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("16", 16),
        ("-3", -3),
        ("0", 0),
        ("0.5", 0.5),
        ("1.0e+3", 1000.0),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("int8_wo", "int8_wo"),
        ("1.2.1", "1.2.1"),
        ("./dir", "./dir"),
    ],
)
def test_words_that_every_yaml_reads_alike_have_their_value(text: str, value: object) -> None:
    assert resolved(text) == value
    assert type(resolved(text)) is type(value)


@pytest.mark.parametrize("text", ["yes", "No", "ON", "off"])
def test_yes_and_no_are_neither_true_nor_text(text: str) -> None:
    answer = resolved(text)
    assert isinstance(answer, Ambiguity)
    assert "true" in answer.hint or "false" in answer.hint


@pytest.mark.parametrize(
    "text",
    [
        *("010", "08", "0x10", "0b11", "0o17", "1_000", "1_0.5", "12:30", "1e3", "1.5e3", "1.5e400", ".5e1"),
        *(".inf", "-.inf", ".nan", "9" * 19, "9" * 5000),
    ],
)
def test_numbers_that_readers_take_differently_are_refused(text: str) -> None:
    answer = resolved(text)
    assert isinstance(answer, Ambiguity)
    assert len(answer.message) < 120


def test_a_date_is_refused_with_its_quoted_form() -> None:
    answer = resolved("2024-01-31")
    assert isinstance(answer, Ambiguity)
    assert "'2024-01-31'" in answer.hint

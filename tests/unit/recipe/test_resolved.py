from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from scalellm_trt.recipe import load
from scalellm_trt.recipe.resolved import resolved_yaml, values, yaml_text

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Write = Callable[..., Path]

MINIMAL = "name: a\nmodel:\n  source: ./my weights\nhardware: cpu\n"


def test_every_value_carries_its_line_or_the_meaning_of_its_default(write: Write) -> None:
    lines = [" ".join(line.split()) for line in resolved_yaml(load(write(MINIMAL))).splitlines()]
    assert "name: a # r.yaml:1" in lines
    assert "max_seq_len: 4096 # default: longest prompt plus answer in tokens" in lines


def test_what_has_no_effect_is_a_comment(write: Write) -> None:
    text = resolved_yaml(load(write(MINIMAL)))
    assert "  # group_size: full_prec has no group size to choose\n" in text
    assert "num_samples" not in text


@pytest.mark.parametrize(
    "extra", ["", "quantization: {weights: int4_awq, group_size: 64}\n", "slo: {ttft_ms: 0.5}\n", "toolchain: 'no'\n"]
)
def test_the_resolved_recipe_loads_to_the_same_recipe(write: Write, extra: str) -> None:
    first = load(write(MINIMAL + extra))
    again = load(write(resolved_yaml(first), "again.yaml"))
    assert again.recipe == first.recipe


@pytest.mark.parametrize(
    "text", ["no", "010", "1e3", "a b", "it's", "a: b", "#a", "", "null", "-", "ä", "a:", "hf:a/b"]
)
def test_text_survives_being_written_and_read(write: Write, text: str) -> None:
    path = write(f"name: {yaml_text(text)}\nhardware: {yaml_text(7)}\n")
    from scalellm_trt.recipe.tree import plain
    from scalellm_trt.recipe.yaml_reader import read

    tree, problems = read(path.read_text(encoding="utf-8"), path)
    assert (plain(tree), problems) == ({"name": text, "hardware": 7}, [])


def test_values_have_dotted_keys_in_the_order_of_the_schema(write: Write) -> None:
    keys = list(values(load(write(MINIMAL))))
    assert keys[:4] == ["schema", "name", "model.source", "model.sha256"]
    assert "quantization.calibration.seed" in keys

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from scalellm_trt.errors import RecipeError
from scalellm_trt.recipe import load

if TYPE_CHECKING:
    from collections.abc import Callable

    Write = Callable[..., Path]

MINIMAL = "name: a\nmodel:\n  source: ./weights\nhardware: cpu\n"


def problems(path: Path) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        load(path)
    return [str(problem).splitlines()[0] for problem in caught.value.problems]


def test_a_recipe_with_the_required_keys_gets_the_defaults(write: Write) -> None:
    recipe = load(write(MINIMAL)).recipe
    assert (recipe.name, recipe.hardware, recipe.backend) == ("a", "cpu", "tensorrt_llm")
    assert recipe.limits.max_seq_len == 4096


def test_each_value_knows_its_line_or_that_it_is_a_default(write: Write) -> None:
    loaded = load(write(MINIMAL))
    assert str(loaded.origin("model.source")) == "r.yaml:3"
    assert str(loaded.origin("model")) == "r.yaml:2"
    assert str(loaded.origin("limits.max_seq_len")) == "default"
    assert loaded.origin("limits.max_seq_len").place is None


def test_a_later_problem_points_at_the_key_its_section_or_the_file(write: Write) -> None:
    loaded = load(write(MINIMAL))
    assert str(loaded.problem("hardware", "is unknown", "Try cpu.")) == "r.yaml:4: hardware: is unknown\n  Try cpu."
    assert str(loaded.problem("model.dtype", "does not fit")) == "r.yaml:2: model.dtype: does not fit"
    assert str(loaded.problem("limits.max_seq_len", "is long")) == "r.yaml: limits.max_seq_len: is long"


def test_extends_merges_mappings_key_by_key_and_replaces_values(write: Write) -> None:
    write("model:\n  source: ./m\n  dtype: bfloat16\nhardware: cpu\nservices: 2\n", "base/b.yaml")
    loaded = load(write("name: a\nextends: base/b.yaml\nmodel:\n  dtype: float32\nservices: 3\n"))
    assert (loaded.recipe.model.dtype, loaded.recipe.services, loaded.recipe.hardware) == ("float32", 3, "cpu")
    assert str(loaded.origin("model.dtype")) == "r.yaml:4"
    assert str(loaded.origin("hardware")) == "base/b.yaml:4"
    assert loaded.files == (Path("r.yaml"), Path("base/b.yaml"))


def test_extends_may_be_chained_and_the_nearest_file_wins(write: Write) -> None:
    write("model: {source: ./m}\nhardware: far\nservices: 2\n", "base/far.yaml")
    write("extends: far.yaml\nhardware: near\n", "base/near.yaml")
    recipe = load(write("name: a\nextends: base/near.yaml\n")).recipe
    assert (recipe.hardware, recipe.services) == ("near", 2)


def test_a_name_is_never_inherited(write: Write) -> None:
    write(MINIMAL, "b.yaml")
    assert problems(write("extends: b.yaml\n")) == ["r.yaml: name: is missing"]


@pytest.mark.parametrize(
    ("value", "resolved"),
    [
        ("./m", "{base}/m"),
        ("../m", "{base}/../m"),
        (".", "{base}"),
        ("/m", "/m"),
        ("~/m", "{home}/m"),
        ("gguf:m/x.gguf", "gguf:{base}/m/x.gguf"),
        ("gguf:/m/x.gguf", "gguf:/m/x.gguf"),
        ("hf:org/name", "hf:org/name"),
    ],
)
def test_a_path_counts_from_the_file_in_which_it_is_written(
    write: Write, monkeypatch: pytest.MonkeyPatch, value: str, resolved: str
) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    write(f"model:\n  source: {value}\nhardware: cpu\n", "base/b.yaml")
    recipe = load(write("name: a\nextends: base/b.yaml\n")).recipe
    assert recipe.model.source == resolved.format(base=Path.cwd() / "base", home="/home/someone")


@pytest.mark.parametrize(("value", "resolved"), [("file:c.txt", "file:{base}/c.txt"), ("dir:/c", "dir:/c")])
def test_a_calibration_path_counts_from_its_file_too(write: Write, value: str, resolved: str) -> None:
    write(f"quantization:\n  weights: int4_awq\n  calibration:\n    source: {value}\n", "base/b.yaml")
    recipe = load(write(f"{MINIMAL}extends: base/b.yaml\n")).recipe
    assert recipe.quantization.calibration.source == resolved.format(base=Path.cwd() / "base")


def test_a_circle_of_files_is_refused_with_the_way_round(write: Write) -> None:
    write("extends: ../r.yaml\n", "base/b.yaml")
    write(f"{MINIMAL}extends: base/b.yaml\n")
    way = "r.yaml → base/b.yaml → base/../r.yaml"
    assert problems(Path("r.yaml")) == [f"base/b.yaml:1: extends: goes round in a circle: {way}"]


def test_a_file_that_extends_itself_under_another_path_is_a_circle(write: Write) -> None:
    Path("link.yaml").symlink_to(write(f"{MINIMAL}extends: link.yaml\n"))
    assert "goes round in a circle" in problems(Path("r.yaml"))[0]


def test_a_chain_of_nine_files_is_too_long(write: Write) -> None:
    write(MINIMAL, "9.yaml")
    for number in range(9):
        write(f"extends: {number + 1}.yaml\n", f"{number}.yaml")
    assert "more than 8 files" in problems(Path("0.yaml"))[0]


def test_a_missing_base_is_reported_at_the_line_that_names_it(write: Write) -> None:
    assert problems(write(f"{MINIMAL}extends: base/b.yaml\n")) == [
        "r.yaml:5: extends: 'base/b.yaml': base/b.yaml does not exist"
    ]


@pytest.mark.parametrize("value", ["5", "[a.yaml]", "", "''", "{a: 1}"])
def test_extends_takes_one_path(write: Write, value: str) -> None:
    assert problems(write(f"{MINIMAL}extends: {value}\n")) == ["r.yaml:5: extends: is not the path of a file"]


def test_an_ambiguous_extends_is_reported_once(write: Write) -> None:
    (problem,) = problems(write(f"{MINIMAL}extends: 010\n"))
    assert problem.startswith("r.yaml:5: extends: '010'")


def test_problems_of_both_files_come_in_one_report_the_recipe_first(write: Write) -> None:
    write("model:\n  source: ./m\n  typo: 1\nhardware: yes\n", "b.yaml")
    found = problems(write("name: a\nextends: b.yaml\nservices: 0\nlimits:\n  max_seq_len: '9'\n"))
    assert [line.split(": ")[:2] for line in found] == [
        ["r.yaml:3", "services"],
        ["r.yaml:5", "limits.max_seq_len"],
        ["b.yaml:3", "model.typo"],
        ["b.yaml:4", "hardware"],
    ]


def test_a_base_that_is_no_yaml_is_reported_with_its_own_line(write: Write) -> None:
    write("a: 'x\n", "b.yaml")
    (problem,) = problems(write(f"{MINIMAL}extends: b.yaml\n"))
    assert problem.startswith("b.yaml:2: is not valid YAML")

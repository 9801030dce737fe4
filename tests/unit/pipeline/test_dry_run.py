"""dry_run: every shipped engine recipe, on a machine with nothing of its toolchain: commands and texts, no work."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scalellm_trt import facts, recipe
from scalellm_trt.cli import command_line
from tests.fakes.shipped_recipes import of_backend

ROOT = Path(__file__).parents[3]
RECIPES = of_backend("tensorrt_llm")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_shown_whole_without_card_image_or_model(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    places = ["--builds", str(tmp_path / "builds"), "--repository", str(tmp_path / "triton_repo")]
    assert command_line.run(["build", str(path), "--dry-run", "--container", "--json", *places]) == 0
    steps = {step["step"]: step for step in json.loads(capsys.readouterr().out)}
    [argv] = steps["compile"]["commands"]
    found = recipe.load(path).recipe
    row = facts.toolchains()[found.toolchain or "tensorrt-llm-1.2.1"].gpu
    assert row is not None
    assert argv[:2] == ["docker", "run"]
    assert argv[argv.index("trtllm-build") - 1] == row.image
    configs = {name: text for name, text in steps["assemble"]["files"].items() if name.endswith("config.pbtxt")}
    assert len(configs) == 2 * found.services
    assert all(text and "${" not in text for text in configs.values())
    assert list(tmp_path.iterdir()) == []

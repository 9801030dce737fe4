"""`kill -9` of a build at ten random moments: nothing published is ever half, and the next build completes."""

from __future__ import annotations

import itertools
import json
import random
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.integration.conftest import RECIPE, ROOT, Workspace, new_workspace

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration
NAME = "smollm2-135m-cpu"
NUM_KILLS = 10


def _recipe(directory: Path, max_batch_size: int, weights: str) -> Path:
    """Write a recipe of the same service that differs in what must be built and published again."""
    path = directory / "recipe.yaml"
    path.write_text(
        f"schema: 1\nextends: {RECIPE}\nname: {NAME}\nquantization:\n  weights: {weights}\n"
        f"limits:\n  max_batch_size: {max_batch_size}\n"
    )
    return path


def _published(workspace: Workspace) -> tuple[int, str] | None:
    """Return what the published service says of itself, from two files of it that must belong together."""
    model = workspace.repository / NAME
    if not model.exists():
        return None
    settings = json.loads((model / "1" / "service.json").read_text())
    manifest = json.loads((model / "1" / "engine" / "manifest.json").read_text())
    for name, recorded in manifest["files"].items():
        assert (model / "1" / "engine" / name).stat().st_size == recorded["size"], name
    return settings["max_batch_size"], manifest["inputs"]["quantization.weights"]


def _build(workspace: Workspace, recipe: Path) -> float:
    """Build, then forget what earlier recipes made, so that the next runs every stage; return the build's seconds."""
    started = time.monotonic()
    subprocess.run(workspace.command("build", str(recipe)), check=True, cwd=ROOT)
    seconds = time.monotonic() - started
    assert not [path for path in workspace.builds.rglob("*.partial") if path.is_dir()]
    prune = [sys.executable, "-m", "scalellm_trt", "cache", "prune", "--builds", str(workspace.builds)]
    subprocess.run(prune, check=True, cwd=ROOT)
    return seconds


def test_killed_builds_leave_the_old_or_the_new_service(tmp_path: Path) -> None:
    workspace = new_workspace(tmp_path)
    chance = random.Random(20261121)
    versions = [(8 + index, "int8_wo" if index % 2 else "int4_wo") for index in range(NUM_KILLS + 2)]
    _build(workspace, _recipe(tmp_path, *versions.pop(0)))  # downloads the model, which no later build does
    full_s = _build(workspace, _recipe(tmp_path, *versions[0]))
    num_killed = 0
    for old, new in itertools.pairwise(versions):
        recipe = _recipe(tmp_path, *new)
        child = subprocess.Popen(workspace.command("build", str(recipe)), cwd=ROOT)
        time.sleep(chance.uniform(0, full_s))
        child.kill()
        num_killed += child.wait() == -signal.SIGKILL
        assert _published(workspace) in (old, new)
        _build(workspace, recipe)
        assert _published(workspace) == new
    assert num_killed >= NUM_KILLS // 2
    again = subprocess.run(
        workspace.command("build", str(recipe), "--json"), check=True, cwd=ROOT, capture_output=True, text=True
    )
    assert json.loads(again.stdout)["num_stages_run"] == 0

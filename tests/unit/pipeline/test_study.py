from __future__ import annotations

from pathlib import Path

import pytest

from scalellm_trt.errors import RecipeError, UnsupportedError
from scalellm_trt.pipeline import Workspace, study

ROOT = Path(__file__).parents[3]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(builds_dir=tmp_path / "builds", repository_dir=tmp_path / "triton_repo")


def test_a_recipe_is_planned_on_its_own_hardware(workspace: Workspace) -> None:
    found = study(ROOT / "recipes/cpu.yaml", workspace)
    assert found.plan.hardware == "cpu"
    assert found.changes == ()
    assert found.refusal is None
    assert found.suggestion is None


def test_unknown_hardware_is_refused_with_the_nearest_name(workspace: Workspace) -> None:
    with pytest.raises(RecipeError, match=r"Nearest: rtx4090\."):
        study(ROOT / "recipes/cpu.yaml", workspace, hardware="rtx4909")


def test_a_backend_that_does_not_run_on_the_asked_hardware_is_refused(workspace: Workspace) -> None:
    with pytest.raises(UnsupportedError, match="'openvino' does not run on rtx4090"):
        study(ROOT / "recipes/cpu.yaml", workspace, hardware="rtx4090")


def test_limits_are_suggested_where_they_are_asked_for(workspace: Workspace) -> None:
    found = study(ROOT / "recipes/cpu.yaml", workspace, objective="sequences").suggestion
    assert found is not None
    assert "limits:\n  max_batch_size: " in found.fragment()

from __future__ import annotations

from pathlib import Path

import pytest

from scalellm_trt.errors import UnsupportedError
from scalellm_trt.pipeline import Workspace, study
from scalellm_trt.plan import outlook

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
    with pytest.raises(UnsupportedError, match=r"Nearest: rtx4090\."):
        study(ROOT / "recipes/cpu.yaml", workspace, hardware="rtx4909")


def test_unknown_hardware_has_the_same_exit_code_in_a_recipe_as_asked_for(workspace: Workspace, tmp_path: Path) -> None:
    body = (ROOT / "recipes/cpu.yaml").read_text().replace("hardware: cpu", "hardware: rtx4909")
    (tmp_path / "r.yaml").write_text(body)
    for recipe, asked in ((tmp_path / "r.yaml", None), (ROOT / "recipes/cpu.yaml", "rtx4909")):
        with pytest.raises(UnsupportedError) as caught:
            study(recipe, workspace, hardware=asked)
        assert caught.value.exit_code == 3


def test_a_backend_that_does_not_run_on_the_asked_hardware_is_refused(workspace: Workspace) -> None:
    with pytest.raises(UnsupportedError, match="'openvino' does not run on rtx4090"):
        study(ROOT / "recipes/cpu.yaml", workspace, hardware="rtx4090")


def test_limits_are_suggested_where_they_are_asked_for(workspace: Workspace) -> None:
    found = study(ROOT / "recipes/cpu.yaml", workspace, objective="sequences").suggestion
    assert found is not None
    assert "limits:\n  max_batch_size: " in found.fragment()


@pytest.mark.parametrize(("kv", "per_token"), [("fp8", 409_600), ("auto", 819_200)])
def test_a_token_of_the_4090_recipe_takes_its_published_bytes(
    kv: str, per_token: int, workspace: Workspace, tmp_path: Path
) -> None:
    text = f"extends: {ROOT}/recipes/rtx4090.yaml\nname: other\nquantization:\n  kv_cache_dtype: {kv}\n"
    (tmp_path / "recipe.yaml").write_text(text + "serving:\n  kv_cache_tokens: 8192\n")
    plan = study(tmp_path / "recipe.yaml", workspace).plan
    assert outlook(plan).pool.bytes_per_token == per_token
    assert plan.fits


def test_a_4090_recipe_with_16_bit_weights_is_refused_and_its_first_suggestion_fits(
    workspace: Workspace, tmp_path: Path
) -> None:
    head = f"extends: {ROOT}/recipes/rtx4090.yaml\nname: other\nserving:\n  kv_cache_tokens: null\n"
    path = tmp_path / "recipe.yaml"
    path.write_text(head + "quantization:\n  weights: full_prec\n  kv_cache_dtype: auto\n")
    refusal = study(path, workspace).refusal
    assert refusal is not None
    assert "Try: quantization.weights: int8_wo (" in str(refusal.problems[0].hint)
    path.write_text(head + "quantization:\n  weights: int8_wo\n  kv_cache_dtype: auto\n")
    assert study(path, workspace).refusal is None


def test_three_services_on_an_a100_hold_a_full_sequence_each_whoever_loads_first(workspace: Workspace) -> None:
    plan = study(ROOT / "recipes/a100-3x.yaml", workspace).plan
    assert plan.services == 3
    pool = outlook(plan).pool
    assert pool.sequences >= 1
    assert pool.last_loader_fraction is not None
    assert pool.last_loader_fraction < 0.95


def test_the_4090_recipe_answers_what_if_it_were_a_3090(workspace: Workspace) -> None:
    found = study(ROOT / "recipes/rtx4090.yaml", workspace, hardware="rtx3090")
    assert {change.field: change.value for change in found.changes} == {
        "hardware": "rtx3090",
        "serving.kv_cache_tokens": "null",
        "quantization.kv_cache_dtype": "auto",
    }
    assert found.plan.fits

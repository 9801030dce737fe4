"""Every recipe that is shipped loads, plans without a download, and opens with what a person needs to know."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from scalellm_trt import pipeline, recipe
from scalellm_trt.pipeline import Workspace
from tests.fakes.planning import SERVER, plan_of

if TYPE_CHECKING:
    from scalellm_trt.plan import Plan

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))


@pytest.fixture(params=RECIPES, ids=lambda path: path.name)
def path(request: pytest.FixtureRequest) -> Path:
    return Path(request.param)


@pytest.fixture
def plan(path: Path, tmp_path: Path) -> Plan:
    """Return the plan: of a CPU recipe for this machine, of a GPU recipe for a server with plenty of host memory."""
    if not path.name.startswith("cpu"):
        return plan_of(path, SERVER)
    return pipeline.explain(path, Workspace(builds_dir=tmp_path / "builds", repository_dir=tmp_path / "triton_repo"))


def test_it_plans_without_a_download_and_fits_every_stage(plan: Plan) -> None:
    assert plan.model.digest == ""
    assert {budget.stage for budget in plan.budgets} == {"quantize", "compile", "load", "serve"}
    assert plan.fits


def test_nothing_is_left_open(plan: Plan) -> None:
    assert plan.quantization.kv_cache_dtype in ("float16", "bfloat16", "int8", "fp8")
    assert plan.serving.kv_cache_tokens % plan.serving.tokens_per_block == 0
    assert all(decision.reason for decision in plan.decisions)


def test_it_opens_with_hardware_and_the_exact_command(path: Path) -> None:
    header = [line for line in path.read_text().split("schema:")[0].splitlines() if line.startswith("#")]
    assert len(header) >= 3
    assert any(f"scalellm-trt build recipes/{path.name}" in line for line in header)


def test_no_two_recipes_claim_one_name() -> None:
    names = [recipe.load(each).recipe.name for each in RECIPES]
    assert len(set(names)) == len(names)


def test_a_gpu_recipe_says_what_nobody_has_run(path: Path, plan: Plan) -> None:
    if plan.backend == "openvino":
        pytest.skip("a CPU recipe has been run")
    header = path.read_text().split("schema:")[0]
    assert "verified: false" in header
    assert "estimate, ±" in header
    assert f"--model {plan.name}" in header
    if any(decision.value == "unconfirmed" for decision in plan.decisions):
        assert "UNCONFIRMED" in header

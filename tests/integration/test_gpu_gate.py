"""The gate of a build in a container: what the image's server answers decides whether a service is published."""

from __future__ import annotations

import json
import os
import sysconfig
from typing import TYPE_CHECKING

import pytest

from scalellm_trt import pipeline
from scalellm_trt.errors import ServerNotReadyError, ThresholdMissedError
from scalellm_trt.pipeline import gate
from scalellm_trt.triton import repository
from tests.fakes.gpu_bench import Bench, bench
from tests.fakes.gpu_builds import TOOLCHAIN, image, model_and_recipe, workspace_of, write_recipe
from tests.fakes.reporters import Recorder

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return model_and_recipe(tmp_path)


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A card and docker with the image; no tritonserver, and no CPU stack to compare with."""
    made = bench(
        tmp_path / "machine", monkeypatch, toolchain=TOOLCHAIN, hardware="rtx4090", programs=("nvidia-smi", "docker"),
        images=[image()],
    )  # fmt: skip
    # The server inside speaks gRPC by the packages that these tests have.
    packages = sysconfig.get_path("purelib")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((os.environ["PYTHONPATH"], packages)))
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    monkeypatch.setattr(gate, "_server_here", lambda: None)
    return made


def build(recipe: Path, *, smoke: bool = True) -> tuple[str, ...]:
    """Build in the container; return what the report says of the last step."""
    report = pipeline.build(recipe, workspace=workspace_of(recipe, "docker"), reporter=Recorder(), smoke=smoke)
    return report.steps[-1].reasons


def published(recipe: Path) -> list[str]:
    return [record.current.transaction for record in repository.list_services(recipe.parent / "triton_repo")]


def serves(made: Bench) -> list[list[str]]:
    return [argv for argv in made.commands() if "tritonserver" in argv]


def test_a_steady_service_is_published_and_nothing_of_the_test_is_left(
    recipe: Path, machine: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_ANSWERS", "steady")
    assert "smoke test passed" in build(recipe)
    [argv] = serves(machine)
    assert argv[argv.index(image()) + 1] == "tritonserver"
    assert json.loads((recipe.parent / "builds" / "tiny" / "smoke.json").read_text())["problems"] == []
    assert published(recipe)
    assert not list(machine.record.parent.glob("*.container"))
    assert not list((recipe.parent / "builds" / ".cache" / "smoke").iterdir())
    [service] = repository.list_services(recipe.parent / "triton_repo")
    assert service.current.toolchain == TOOLCHAIN


@pytest.mark.parametrize(
    ("answers", "error", "says"),
    [
        ("unsteady", ThresholdMissedError, "got another answer when repeated"),
        ("none", ServerNotReadyError, "no kernel image is available"),
    ],
)
def test_a_service_that_fails_is_not_published_and_the_one_before_stays(
    recipe: Path, machine: Bench, monkeypatch: pytest.MonkeyPatch, answers: str, error: type[Exception], says: str
) -> None:
    monkeypatch.setenv("FAKE_ANSWERS", "steady")
    build(recipe)
    before = published(recipe)
    write_recipe(recipe.parent, max_batch_size=2)
    monkeypatch.setenv("FAKE_ANSWERS", answers)
    with pytest.raises(error, match=says) as caught:
        build(recipe)
    assert getattr(caught.value, "exit_code", None) == (8 if answers == "unsteady" else 7)
    assert published(recipe) == before
    assert not list(machine.record.parent.glob("*.container"))
    assert build(recipe, smoke=False)[-1] == "not smoke-tested: --no-smoke"
    assert published(recipe) != before


def test_without_a_card_a_build_says_that_it_was_not_tested(
    recipe: Path, machine: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_only = workspace_of(recipe, "docker")
    pipeline.build(recipe, workspace=build_only, reporter=Recorder(), until="compile")
    monkeypatch.setenv("FAKE_NVIDIA_SMI", json.dumps({"cards": []}))
    assert build(recipe)[-1] == "not smoke-tested: no NVIDIA card here"
    assert serves(machine) == []


def test_a_dry_run_shows_the_server_that_would_be_asked(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def last(*, smoke: bool) -> tuple[tuple[str, ...], ...]:
        steps = pipeline.dry_run(
            recipe, workspace=workspace_of(recipe, "docker"), until="assemble", force=frozenset(), smoke=smoke
        )
        return steps[-1].commands

    [argv] = last(smoke=True)
    assert argv[:2] == ("docker", "run")
    assert argv[argv.index(image()) + 1] == "tritonserver"
    root = recipe.parent / "builds" / ".cache" / "smoke" / "tiny"
    assert f"--model-repository={root}" in argv
    assert last(smoke=False) == ()

"""pipeline: a tiny model through the whole line; what is unchanged does not run, and what runs says why."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from scalellm_trt import pipeline
from scalellm_trt.errors import ArtefactError, RecipeError, StageError, UnsupportedError
from scalellm_trt.pipeline import Workspace
from scalellm_trt.triton import repository_check
from tests.fakes import tiny_models
from tests.fakes.reporters import Recorder

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from scalellm_trt.pipeline import BuildReport, Step

RECIPE = """schema: 1
name: tiny
model:
  source: ./model
hardware: cpu
backend: openvino
quantization:
  weights: {weights}
limits:
  max_batch_size: {max_batch_size}
  max_seq_len: 64
serving:
  kv_cache_tokens: 256
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    tiny_models.write_model(tmp_path / "model")
    return write_recipe(tmp_path)


def write_recipe(directory: Path, *, weights: str = "int8_wo", max_batch_size: int = 4) -> Path:
    path = directory / "tiny.yaml"
    path.write_text(RECIPE.format(weights=weights, max_batch_size=max_batch_size))
    return path


def workspace_of(recipe: Path) -> Workspace:
    return Workspace(builds_dir=recipe.parent / "builds", repository_dir=recipe.parent / "triton_repo")


def write_calibrated_recipe(directory: Path, source: str) -> Path:
    path = directory / "awq.yaml"
    path.write_text(
        "extends: tiny.yaml\nname: awq\nquantization:\n  weights: int4_awq\n  group_size: 16\n  calibration:\n"
        f"    source: {source}\n"
    )
    return path


def build(recipe: Path, until: Step = "assemble", force: Sequence[Step] = ()) -> BuildReport:
    return pipeline.build(
        recipe, workspace=workspace_of(recipe), reporter=Recorder(), until=until, force=frozenset(force)
    )


def ran(report: BuildReport) -> dict[str, tuple[str, ...]]:
    return {step.step: step.reasons for step in report.steps if step.ran}


def preview(recipe: Path) -> dict[str, list[str]]:
    steps = pipeline.preview(recipe, workspace=workspace_of(recipe), until="assemble", force=frozenset())
    return {step: reasons for step, reasons in steps if reasons}


def test_a_build_publishes_a_service_and_reports_every_step_in_order(recipe: Path) -> None:
    recorder = Recorder()
    report = pipeline.build(recipe, workspace=workspace_of(recipe), reporter=recorder)
    assert recorder.events == [f"{when} {step}" for step in pipeline.STEPS for when in ("start", "end")]
    assert report.num_stages_run == 3
    model = recipe.parent / "triton_repo" / "tiny"
    assert (model / "config.pbtxt").is_file()
    assert (model / "1" / "engine" / "openvino_model.bin").is_file()
    plan = json.loads((recipe.parent / "builds" / "tiny" / "plan.json").read_text())
    assert plan["name"] == "tiny"


def test_a_second_build_runs_no_stage(recipe: Path) -> None:
    build(recipe)
    assert ran(build(recipe)) == {}


def test_a_serving_limit_assembles_again_and_nothing_else(recipe: Path) -> None:
    build(recipe)
    write_recipe(recipe.parent, max_batch_size=2)
    why = ran(build(recipe))
    assert why.pop("plan") == ("new plan",)
    assert why == {"assemble": ("limits.max_batch_size 4 → 2",)}


def test_another_format_runs_every_stage_and_names_the_key(recipe: Path) -> None:
    build(recipe)
    write_recipe(recipe.parent, weights="int4_wo")
    why = ran(build(recipe))
    assert "quantization.weights int8_wo → int4_wo" in why["quantize"]
    assert any(reason.startswith("checkpoint ") for reason in why["compile"])
    assert any(reason.startswith("engine ") for reason in why["assemble"])


def test_changed_weights_run_every_stage(recipe: Path) -> None:
    build(recipe)
    tiny_models.write_model(recipe.parent / "model", seed=1)
    assert list(ran(build(recipe))) == ["plan", "quantize", "compile", "assemble"]


def test_until_stops_after_the_step(recipe: Path) -> None:
    assert list(ran(build(recipe, until="quantize"))) == ["plan", "quantize"]
    assert not (recipe.parent / "triton_repo").exists()


def test_force_runs_one_stage_again(recipe: Path) -> None:
    build(recipe)
    assert ran(build(recipe, force=["compile"])) == {"compile": ("forced",)}


def test_a_file_damaged_in_the_repository_is_published_again(recipe: Path) -> None:
    build(recipe)
    (recipe.parent / "triton_repo" / "tiny" / "config.pbtxt").write_text("damaged")
    assert ran(build(recipe)) == {"assemble": ("its files in the repository were changed",)}


def test_preview_says_what_build_then_does_and_touches_nothing(recipe: Path) -> None:
    assert list(preview(recipe)) == ["quantize", "compile", "assemble"]
    assert not (recipe.parent / "triton_repo").exists()
    assert not (recipe.parent / "builds" / "tiny").exists()
    build(recipe)
    assert preview(recipe) == {}
    write_recipe(recipe.parent, max_batch_size=2)
    assert preview(recipe) == {"assemble": ["limits.max_batch_size 4 → 2"]}


def test_explain_and_build_make_the_same_plan(recipe: Path) -> None:
    build(recipe)
    saved = json.loads((recipe.parent / "builds" / "tiny" / "plan.json").read_text())["digest"]
    from scalellm_trt.plan import plan_digest

    assert plan_digest(pipeline.explain(recipe, workspace_of(recipe))) == saved


def test_a_format_that_the_backend_lacks_is_refused_before_any_work(recipe: Path) -> None:
    write_recipe(recipe.parent, weights="fp8")
    with pytest.raises(UnsupportedError, match=r"tiny\.yaml:8: quantization\.weights"):
        build(recipe)
    assert not (recipe.parent / "builds" / ".cache" / "stages").exists()


def test_check_finds_nothing_wrong_with_a_model_that_was_not_fetched_yet(recipe: Path) -> None:
    recipe.write_text(recipe.read_text().replace("./model", "hf:nobody/knows-this"))
    assert pipeline.check(recipe, workspace_of(recipe)) == []


def test_a_stage_without_room_on_the_disk_is_refused_before_it_starts(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scalellm_trt import detect

    real = detect.machine

    def full(folder: Path | None = None) -> detect.Machine:
        import dataclasses

        return dataclasses.replace(real(), disk_free_bytes=1000)

    monkeypatch.setattr(detect, "machine", full)
    with pytest.raises(StageError, match=r"only .* are free on the disk"):
        build(recipe)


def test_an_unknown_step_is_a_usage_error_that_names_the_allowed() -> None:
    with pytest.raises(RecipeError, match=r"--until: 'quantise' is not a step\n  Allowed: plan, quantize"):
        pipeline.parse_step("quantise", "--until")


def test_verify_cache_reads_checkpoints_back_and_finds_a_flipped_byte(recipe: Path) -> None:
    build(recipe)
    builds = recipe.parent / "builds"
    assert [problems for problems in pipeline.verify_cache(builds).values() if problems] == []
    checkpoint = (builds / "tiny" / "quantize").resolve()
    weights = checkpoint / "rank0.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 0x40
    weights.write_bytes(content)
    damage = pipeline.verify_cache(builds)
    assert damage[checkpoint] == ["rank0.safetensors: content differs from the manifest"]


def test_prune_keeps_the_current_artefacts(recipe: Path) -> None:
    build(recipe)
    write_recipe(recipe.parent, weights="int4_wo")
    build(recipe)
    removed = pipeline.prune_cache(recipe.parent / "builds")
    assert len(removed) == 2
    assert all(entry.used_by == ("tiny",) for entry in pipeline.cache_entries(recipe.parent / "builds"))
    assert ran(build(recipe)) == {}


def test_another_services_directory_is_not_taken(recipe: Path) -> None:
    stranger = recipe.parent / "triton_repo" / "tiny"
    stranger.mkdir(parents=True)
    (stranger / "precious.txt").write_text("mine")
    with pytest.raises(ArtefactError, match="tiny"):
        build(recipe)
    assert (stranger / "precious.txt").read_text() == "mine"


def test_serving_is_refused_when_an_engine_has_other_contents_behind_the_same_size(recipe: Path) -> None:
    build(recipe)
    repository = recipe.parent / "triton_repo"
    repository_check.check(repository)
    weights = repository / "tiny" / "1" / "engine" / "openvino_model.bin"
    content = bytearray(weights.read_bytes())
    content[0] ^= 0x01
    weights.write_bytes(content)
    with pytest.raises(ArtefactError, match=r"tiny/1/engine/openvino_model\.bin has other contents"):
        repository_check.check(repository)


def test_a_source_that_is_not_there_is_reported_at_its_line(recipe: Path) -> None:
    recipe.write_text(recipe.read_text().replace("./model", "gguf:nope.gguf"))
    for attempt in (build, preview):
        with pytest.raises(RecipeError, match=r"tiny\.yaml:4: model\.source: there is no file"):
            attempt(recipe)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("file:./no.txt", "there is no file {}/no.txt"),
        ("dir:./no", "there is no directory {}/no"),
        ("file:./latin.txt", "{}/latin.txt cannot be read: UnicodeDecodeError"),
    ],
)
def test_calibration_text_that_is_not_there_is_told_with_the_line_that_names_it(
    recipe: Path, source: str, says: str
) -> None:
    (recipe.parent / "latin.txt").write_bytes(b"caf\xe9")
    path = write_calibrated_recipe(recipe.parent, source)
    expected = f"{path}:7: quantization.calibration.source: {says.format(recipe.parent)}"
    for act in (
        lambda: build(path),
        lambda: pipeline.preview(path, workspace=workspace_of(path), until="assemble", force=frozenset()),
    ):
        with pytest.raises(RecipeError) as caught:
            act()
        assert str(caught.value).startswith(expected)
    assert not (recipe.parent / "builds" / "awq" / "quantize").exists()


def test_text_that_is_missing_is_told_before_the_model_is_fetched(recipe: Path) -> None:
    path = write_calibrated_recipe(recipe.parent, "file:./no.txt")
    (recipe.parent / "model" / "config.json").unlink()
    with pytest.raises(RecipeError, match=r"awq\.yaml:7: quantization\.calibration\.source: there is no file"):
        build(path)
    with pytest.raises(RecipeError, match=r"awq\.yaml:7: quantization\.calibration\.source: there is no file"):
        pipeline.check(path, workspace_of(path))

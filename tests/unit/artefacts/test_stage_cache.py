"""stage_cache: a stage runs when its inputs are new or its artefact is damaged, and a kill leaves nothing half."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from scalellm_trt.artefacts.stage_cache import StageCache
from scalellm_trt.artefacts.types import Stamp
from scalellm_trt.errors import StageError

if TYPE_CHECKING:
    from scalellm_trt.artefacts.stage_cache import StageResult

INPUTS = {"limits.max_num_tokens": 4096}


def _build(builds: Path, *, inputs: dict[str, int] = INPUTS, recipe: str = "r", force: bool = False) -> StageResult:
    def make(out_dir: Path) -> None:
        (out_dir / "engine.bin").write_text(str(inputs))

    return StageCache(builds).find_or_make(recipe, "compile", inputs, make, force=force)


def test_the_first_build_runs_and_the_second_does_not(tmp_path: Path) -> None:
    first, second = _build(tmp_path), _build(tmp_path)
    assert (first.ran, first.reasons) == (True, ("not built yet",))
    assert (second.ran, second.reasons) == (False, ())
    assert second.directory == first.directory
    assert (tmp_path / "r" / "compile" / "engine.bin").read_text() == str(INPUTS)


def test_a_changed_input_is_named(tmp_path: Path) -> None:
    _build(tmp_path)
    assert _build(tmp_path, inputs={"limits.max_num_tokens": 8192}).reasons == ("limits.max_num_tokens 4096 → 8192",)


def test_going_back_to_an_earlier_input_finds_its_artefact(tmp_path: Path) -> None:
    first = _build(tmp_path)
    _build(tmp_path, inputs={"limits.max_num_tokens": 8192})
    again = _build(tmp_path)
    assert not again.ran
    assert (tmp_path / "r" / "compile").resolve() == first.directory


def test_two_recipes_with_the_same_inputs_share_one_artefact(tmp_path: Path) -> None:
    _build(tmp_path)
    assert not _build(tmp_path, recipe="other").ran
    assert (tmp_path / "other" / "compile").resolve() == (tmp_path / "r" / "compile").resolve()


def test_a_damaged_artefact_is_made_again(tmp_path: Path) -> None:
    first = _build(tmp_path)
    (first.directory / "engine.bin").write_text("damaged")
    again = _build(tmp_path)
    assert again.reasons == ("engine.bin was changed or lost on disk",)
    assert (first.directory / "engine.bin").read_text() == str(INPUTS)


def test_a_broken_manifest_makes_the_stage_run(tmp_path: Path) -> None:
    first = _build(tmp_path)
    (first.directory / "manifest.json").write_text("{")
    again = _build(tmp_path)
    assert again.ran
    assert "manifest.json" in again.reasons[0]


def test_force_runs_a_stage_that_is_unchanged(tmp_path: Path) -> None:
    _build(tmp_path)
    assert _build(tmp_path, force=True).reasons == ("forced",)


def test_a_failed_stage_leaves_no_artefact(tmp_path: Path) -> None:
    cache = StageCache(tmp_path)

    def fail(out_dir: Path) -> None:
        (out_dir / "half.bin").write_text("half")
        message = "it broke"
        raise StageError(message)

    with pytest.raises(StageError, match="it broke"):
        cache.find_or_make("r", "compile", INPUTS, fail)
    assert list(cache.artefacts()) == []
    assert _build(tmp_path).reasons == ("not built yet",)


def test_a_full_disk_is_a_stage_error(tmp_path: Path) -> None:
    def fill(out_dir: Path) -> None:
        raise OSError(28, "No space left on device", str(out_dir / "engine.bin"))

    with pytest.raises(StageError, match="No space left on device"):
        StageCache(tmp_path).find_or_make("r", "compile", INPUTS, fill)


def test_prune_keeps_what_recipes_use_and_removes_the_rest(tmp_path: Path) -> None:
    first = _build(tmp_path)
    second = _build(tmp_path, inputs={"limits.max_num_tokens": 8192})
    cache = StageCache(tmp_path)
    (second.directory.parent / "0123.partial").mkdir()
    removed = cache.prune()
    assert sorted(path.name for path in removed) == sorted(["0123.partial", first.directory.name])
    assert list(cache.artefacts()) == [second.directory]


def test_a_killed_build_is_resumed(tmp_path: Path) -> None:
    code = (
        "import os, pathlib\n"
        "from scalellm_trt.artefacts.stage_cache import StageCache\n"
        "def make(out):\n"
        "    (out / 'engine.bin').write_text('half')\n"
        "    os.kill(os.getpid(), 9)\n"
        f"StageCache(pathlib.Path({str(tmp_path)!r})).find_or_make('r', 'compile', {INPUTS!r}, make)\n"
    )
    child = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(Path.cwd())}, check=False)
    assert child.returncode == -signal.SIGKILL
    result = _build(tmp_path)
    assert result.ran
    assert (result.directory / "engine.bin").read_text() == str(INPUTS)
    assert not list(result.directory.parent.glob("*.partial"))


def test_the_stamp_that_a_stage_returns_is_kept_in_its_manifest(tmp_path: Path) -> None:
    stamp = Stamp(
        gpu_name="NVIDIA GeForce RTX 4090",
        compute_capability="8.9",
        tensorrt="10.14.1.48",
        tensorrt_llm="1.2.1",
        driver_floor="580.65.06",
        image=None,
    )

    def make(out_dir: Path) -> Stamp:
        (out_dir / "rank0.engine").write_bytes(b"engine")
        return stamp

    cache = StageCache(tmp_path)
    assert cache.find_or_make("r", "compile", {"a": 1}, make).manifest.stamp == stamp
    assert cache.find_or_make("r", "compile", {"a": 1}, make).manifest.stamp == stamp

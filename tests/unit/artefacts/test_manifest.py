"""manifest: what was written is read back, and what changed on disk is noticed."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from scalellm_trt.artefacts import manifest
from scalellm_trt.errors import ArtefactError

if TYPE_CHECKING:
    from pathlib import Path


def _artefact(directory: Path) -> manifest.Manifest:
    (directory / "sub").mkdir(parents=True)
    (directory / "a.bin").write_bytes(b"abc")
    (directory / "sub" / "b.txt").write_text("text")
    made = manifest.describe(directory, stage="compile", inputs={"limits.max_seq_len": 4096}, seconds=1.23456)
    manifest.write(directory, made)
    return made


def test_a_manifest_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    made = _artefact(tmp_path)
    assert manifest.read(tmp_path) == made
    assert sorted(made.files) == ["a.bin", "sub/b.txt"]


def test_the_digest_depends_on_contents_and_names_only(tmp_path: Path) -> None:
    first, second, third = (_artefact(tmp_path / name) for name in "xyz")
    os.utime(tmp_path / "y" / "a.bin", ns=(1, 1))
    assert manifest.describe(tmp_path / "y", stage="compile", inputs={}, seconds=0).digest == first.digest
    (tmp_path / "z" / "a.bin").write_bytes(b"abd")
    assert manifest.describe(tmp_path / "z", stage="compile", inputs={}, seconds=0).digest != third.digest
    assert second.digest == first.digest


def test_a_touched_file_counts_as_changed_quickly_but_not_when_hashed(tmp_path: Path) -> None:
    made = _artefact(tmp_path)
    os.utime(tmp_path / "a.bin", ns=(1, 1))
    assert manifest.changed_files(tmp_path, made) == ["a.bin"]
    assert manifest.changed_files(tmp_path, made, hashed=True) == []


def test_a_flipped_byte_behind_the_same_size_and_mtime_is_found_by_hashing(tmp_path: Path) -> None:
    made = _artefact(tmp_path)
    recorded = made.files["a.bin"]
    (tmp_path / "a.bin").write_bytes(b"abX")
    os.utime(tmp_path / "a.bin", ns=(recorded.mtime_ns, recorded.mtime_ns))
    assert manifest.changed_files(tmp_path, made) == []
    assert manifest.changed_files(tmp_path, made, hashed=True) == ["a.bin"]


def test_a_lost_file_is_noticed(tmp_path: Path) -> None:
    made = _artefact(tmp_path)
    (tmp_path / "sub" / "b.txt").unlink()
    assert manifest.changed_files(tmp_path, made) == ["sub/b.txt"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 1}', '{"schema": 99}', '{"schema": 1, "files": 3}'])
def test_a_broken_manifest_is_an_artefact_error(tmp_path: Path, text: str) -> None:
    (tmp_path / manifest.MANIFEST_NAME).write_text(text)
    with pytest.raises(ArtefactError, match=r"manifest\.json"):
        manifest.read(tmp_path)


def test_a_directory_without_manifest_is_an_artefact_error(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="no finished artefact"):
        manifest.read(tmp_path)


def test_changed_inputs_name_the_key_and_both_values() -> None:
    old: dict[str, manifest.Scalar] = {"limits.max_num_tokens": 4096, "same": 1, "gone": "x"}
    new: dict[str, manifest.Scalar] = {"limits.max_num_tokens": 8192, "same": 1, "new": None}
    assert manifest.changed_inputs(old, new) == [
        "gone x → (none)",
        "limits.max_num_tokens 4096 → 8192",
        "new (none) → None",
    ]


def test_changed_digests_are_shortened_in_the_message() -> None:
    (line,) = manifest.changed_inputs({"model": "a" * 64}, {"model": "b" * 64})
    assert line == f"model {'a' * 12} → {'b' * 12}"


def test_the_samples_of_a_calibrated_checkpoint_are_in_its_manifest(tmp_path: Path) -> None:
    record = {"source": "bundled", "num_samples": 32, "max_seq_len": 512, "seed": 1234, "digest": "ab"}
    (tmp_path / "calibration.json").write_text(json.dumps(record))
    made = manifest.describe(tmp_path, stage="quantize", inputs={}, seconds=1)
    manifest.write(tmp_path, made)
    assert manifest.read(tmp_path).calibration == record

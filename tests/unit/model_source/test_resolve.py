from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from scalellm_trt.errors import ArtefactError, RecipeError, StageError
from scalellm_trt.model_source import find, resolve
from tests.fakes import gguf_models, hf_models
from tests.fakes.hub_server import FakeHub, HubRepository

if TYPE_CHECKING:
    from pathlib import Path

    from scalellm_trt.artefacts.types import LocalModel


def resolved(tmp_path: Path, source: str, sha256: str | None = None) -> LocalModel:
    return resolve(source, sha256, tmp_path / "cache", lambda activity, share: None, base_dir=tmp_path)


def lay_out(directory: Path, files: dict[str, bytes]) -> None:
    directory.mkdir(exist_ok=True)
    for name, content in files.items():
        (directory / name).write_bytes(content)


def test_a_directory_counts_from_the_recipe_and_is_named_by_its_digest(tmp_path: Path) -> None:
    lay_out(tmp_path / "m", hf_models.model())
    model = resolved(tmp_path, "./m")
    assert model.directory == tmp_path / "m"
    assert model.source == "./m"
    assert model.revision == model.digest
    assert len(model.digest) == 64


def test_the_digest_changes_with_a_file_that_is_read_and_with_no_other(tmp_path: Path) -> None:
    lay_out(tmp_path / "m", hf_models.model())
    first = resolved(tmp_path, "./m").digest
    lay_out(tmp_path / "m", {"README.md": b"new"})
    assert resolved(tmp_path, "./m").digest == first
    lay_out(tmp_path / "m", {"config.json": b"{} "})
    assert resolved(tmp_path, "./m").digest != first


def test_the_same_model_has_the_same_digest_wherever_it_lies(tmp_path: Path) -> None:
    for name in ("a", "b"):
        lay_out(tmp_path / name, hf_models.model())
    assert resolved(tmp_path, "./a").digest == resolved(tmp_path, "./b").digest


def test_a_gguf_file_is_imported_under_its_own_digest(tmp_path: Path) -> None:
    file = gguf_models.write(tmp_path / "m.gguf")
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    model = resolved(tmp_path, "gguf:m.gguf", sha256)
    assert model.revision == sha256
    assert model.directory.parent == tmp_path / "cache" / "imported"
    assert resolved(tmp_path, f"gguf:{file}").directory == model.directory


def test_a_gguf_file_that_is_not_the_pinned_one_is_refused(tmp_path: Path) -> None:
    gguf_models.write(tmp_path / "m.gguf")
    with pytest.raises(ArtefactError, match=r"model\.sha256: .*m\.gguf is not the file that the recipe pins"):
        resolved(tmp_path, "gguf:m.gguf", "0" * 64)
    assert not (tmp_path / "cache" / "imported").exists()


def test_a_hub_model_is_named_by_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeHub(repositories={"o/m": HubRepository(commit="c" * 40, files=hf_models.model())}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hf"))
        model = resolved(tmp_path, "hf:o/m")
    assert model.revision == "c" * 40
    lay_out(tmp_path / "m", hf_models.model())
    assert model.digest == resolved(tmp_path, "./m").digest


@pytest.mark.parametrize(
    ("source", "said"),
    [("./none", "there is no directory"), ("gguf:none.gguf", "there is no file"), ("gguf:.", "there is no file")],
)
def test_a_path_that_is_not_there_is_the_recipes_mistake(tmp_path: Path, source: str, said: str) -> None:
    with pytest.raises(RecipeError, match=f"{said}.*\n.*counts from the recipe's folder"):
        resolved(tmp_path, source)


@pytest.mark.parametrize("source", ["hf:o/m", "./m"])
def test_a_digest_goes_with_single_files_only(tmp_path: Path, source: str) -> None:
    with pytest.raises(RecipeError, match=r"model\.sha256: is the digest of one file"):
        resolved(tmp_path, source, "0" * 64)


def test_a_cache_that_cannot_be_written_is_a_failed_stage(tmp_path: Path) -> None:
    lay_out(tmp_path / "m", hf_models.model())
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(StageError, match=r"model\.source: .*cache"):
        resolved(tmp_path, "./m")


def test_find_imports_nothing_and_then_finds_what_was_resolved(tmp_path: Path) -> None:
    gguf_models.write(tmp_path / "m.gguf")
    assert find("gguf:m.gguf", None, tmp_path / "cache", base_dir=tmp_path) is None
    assert not (tmp_path / "cache" / "imported").exists()
    model = resolved(tmp_path, "gguf:m.gguf")
    assert find("gguf:m.gguf", None, tmp_path / "cache", base_dir=tmp_path) == model


def test_find_does_not_ask_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hf"))
    with FakeHub(repositories={"o/m": HubRepository(commit="c" * 40, files=hf_models.model())}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        assert find("hf:o/m", None, tmp_path / "cache", base_dir=tmp_path) is None
        model = resolved(tmp_path, "hf:o/m")
    assert find("hf:o/m", None, tmp_path / "cache", base_dir=tmp_path) == model


def test_find_returns_none_for_a_wheel_that_was_not_downloaded(tmp_path: Path) -> None:
    assert find("pypi:p==1/f.gguf", "0" * 64, tmp_path / "cache", base_dir=tmp_path) is None


def test_find_returns_a_wheels_model_once_it_was_imported(tmp_path: Path) -> None:
    source = "pypi:p==1/m.gguf"
    content = gguf_models.write(tmp_path / "m.gguf").read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    downloaded = tmp_path / "cache" / "files" / sha256
    downloaded.mkdir(parents=True)
    (downloaded / "m.gguf").write_bytes(content)
    assert find(source, sha256, tmp_path / "cache", base_dir=tmp_path) is None
    model = resolved(tmp_path, source, sha256)
    assert find(source, sha256, tmp_path / "cache", base_dir=tmp_path) == model

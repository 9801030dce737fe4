from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from scalellm_trt.errors import ArtefactError, RecipeError
from scalellm_trt.model_source import layout
from tests.fakes import hf_models

if TYPE_CHECKING:
    from pathlib import Path


def laid_out(directory: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (directory / name).write_bytes(content)
    return directory


def sharded() -> dict[str, bytes]:
    files = hf_models.model()
    shard = files.pop("model.safetensors")
    return {**files, layout.INDEX_FILE: hf_models.index("a.safetensors", "b.safetensors"), "a.safetensors": shard}


def test_only_what_a_build_reads_is_named(tmp_path: Path) -> None:
    others = ("README.md", "pytorch_model.bin", "consolidated.safetensors", "chat_template.jinja", "tokenizer.model")
    directory = laid_out(tmp_path, {**hf_models.model(), **dict.fromkeys(others, b"{}")})
    assert layout.check_directory(directory, "m") == [
        "config.json",
        "tokenizer.json",
        "chat_template.jinja",
        "tokenizer.model",
        "model.safetensors",
    ]


def test_shards_are_those_of_the_index(tmp_path: Path) -> None:
    directory = laid_out(tmp_path, {**sharded(), "b.safetensors": hf_models.safetensors()})
    names = layout.check_directory(directory, "m")
    assert names[2:] == [layout.INDEX_FILE, "a.safetensors", "b.safetensors"]


def test_links_are_followed_as_a_hub_cache_needs_it(tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    blobs.mkdir()
    snapshot.mkdir()
    laid_out(blobs, hf_models.model())
    for name in hf_models.model():
        (snapshot / name).symlink_to(blobs / name)
    assert layout.check_directory(snapshot, "m")[-1] == "model.safetensors"


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match=r"1 of 2 weight files are missing: b\.safetensors"):
        layout.check_directory(laid_out(tmp_path, sharded()), "m")


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/x.safetensors", "a/b.safetensors", "model.bin"])
def test_an_index_cannot_lead_out_of_the_folder(tmp_path: Path, name: str) -> None:
    files = {**sharded(), layout.INDEX_FILE: hf_models.index(name)}
    with pytest.raises(ArtefactError, match="no plain name of a safetensors file"):
        layout.check_directory(laid_out(tmp_path, files), "m")


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"weight_map": [1]}', b'{"weight_map": {"a": 1}}', b"\xff"])
def test_a_broken_index_is_damage(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ArtefactError, match=r"safetensors"):
        layout.check_directory(laid_out(tmp_path, {**sharded(), layout.INDEX_FILE: content}), "m")


def test_everything_that_is_missing_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        layout.check_directory(tmp_path, "./m")
    assert [problem.message for problem in caught.value.problems] == [
        "./m has no config.json",
        "./m has no safetensors weights (model.safetensors or model.safetensors.index.json)",
        "./m has no tokenizer.json",
    ]


@pytest.mark.parametrize(
    ("name", "hint"), [("pytorch_model.bin", "Pickled weights can run any code"), ("m.gguf", "write gguf:FILE")]
)
def test_other_weights_are_refused_with_the_way_out(name: str, hint: str) -> None:
    with pytest.raises(RecipeError) as caught:
        layout.check_listing(["config.json", "tokenizer.json", name], "hf:o/m")
    (problem,) = caught.value.problems
    assert f"only {name}" in problem.message
    assert hint in str(problem.hint)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is no safetensors file"),
        (b"\xff" * 40, "header is longer than the file"),
        (hf_models.safetensors()[:-1], "has 76 bytes, its header promises 77"),
        (hf_models.safetensors() + b"x", "header promises"),
        (b"\2\0\0\0\0\0\0\0[]", "is no safetensors file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "git lfs pull"),
    ],
)
def test_a_damaged_weight_file_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    files = {**hf_models.model(), "model.safetensors": content}
    with pytest.raises(ArtefactError, match=r"model\.safetensors") as caught:
        layout.check_directory(laid_out(tmp_path, files), "m")
    assert said in str(caught.value)

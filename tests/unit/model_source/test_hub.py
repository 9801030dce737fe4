from __future__ import annotations

import errno
import shutil
from typing import TYPE_CHECKING

import huggingface_hub
import pytest

from scalellm_trt.errors import RecipeError, StageError
from scalellm_trt.model_source import HubSource, hub, layout
from scalellm_trt.model_source.store import Store
from tests.fakes import hf_models
from tests.fakes.hub_server import FakeHub, HubRepository

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COMMIT = "a" * 40
SOURCE = HubSource(repository="org/model", revision="main")
PINNED = HubSource(repository="org/model", revision=COMMIT)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub with one model; `huggingface_hub` itself talks to it."""
    files = hf_models.model(README__md=b"text", pytorch_model__bin=b"pickle", tokenizer_config__json=b"{}")
    files["onnx/model.safetensors"] = b"elsewhere"
    with FakeHub(repositories={"org/model": HubRepository(commit=COMMIT, files=files)}) as hub_server:
        monkeypatch.setenv("HF_ENDPOINT", hub_server.url)
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hf"))
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield hub_server


def find(tmp_path: Path, source: HubSource = SOURCE) -> tuple[hub.Snapshot, list[str]]:
    told: list[str] = []
    snapshot = hub.find_or_download(
        source, Store(tmp_path / "cache"), lambda activity, share: told.append(f"{activity} {share}")
    )
    return snapshot, told


def test_a_branch_becomes_a_commit_and_only_what_a_build_reads_is_downloaded(tmp_path: Path, server: FakeHub) -> None:
    snapshot, told = find(tmp_path)
    assert snapshot.commit == COMMIT
    assert sorted(path.name for path in snapshot.directory.iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert all(f"/resolve/{COMMIT}/" in request.path for request in server.seen if "/resolve/" in request.path)
    assert told[-1] == "downloading org/model 1.0"


def test_of_a_sharded_model_only_the_shards_of_the_index_are_downloaded(tmp_path: Path, server: FakeHub) -> None:
    files = server.repositories["org/model"].files
    shard = files.pop("model.safetensors")
    names = ("model-1.safetensors", "model-2.safetensors")
    files.update(
        {layout.INDEX_FILE: hf_models.index(*names), **dict.fromkeys((*names, "consolidated.safetensors"), shard)}
    )
    snapshot, _ = find(tmp_path)
    assert {path.name for path in snapshot.directory.glob("*.safetensors")} == set(names)


def test_a_commit_that_is_all_there_needs_no_network(tmp_path: Path, server: FakeHub) -> None:
    first, _ = find(tmp_path, PINNED)
    server.seen.clear()
    second, told = find(tmp_path, PINNED)
    assert second == first
    assert (server.seen, told) == ([], [])


def test_a_file_that_was_lost_from_the_cache_is_downloaded_again(tmp_path: Path, server: FakeHub) -> None:
    snapshot, _ = find(tmp_path, PINNED)
    (snapshot.directory / "model.safetensors").unlink()
    assert (find(tmp_path, PINNED)[0].directory / "model.safetensors").is_file()


def test_a_moved_branch_is_followed(tmp_path: Path, server: FakeHub) -> None:
    find(tmp_path)
    moved = HubRepository(commit="b" * 40, files=server.repositories["org/model"].files)
    server.repositories["org/model"] = moved
    assert find(tmp_path)[0].commit == "b" * 40


def test_without_a_network_the_last_commit_of_a_branch_is_used_and_said(tmp_path: Path, server: FakeHub) -> None:
    find(tmp_path)
    server.status = 503
    snapshot, told = find(tmp_path)
    assert snapshot.commit == COMMIT
    assert told[-1] == "the hub cannot be reached: using the cached commit aaaaaaaaaaaa 1.0"


def test_without_a_network_what_another_tool_downloaded_is_used(tmp_path: Path, server: FakeHub) -> None:
    find(tmp_path)
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "hf" / "models--org--model" / "refs").mkdir(exist_ok=True)
    (tmp_path / "hf" / "models--org--model" / "refs" / "main").write_text(COMMIT)
    server.status = 503
    assert find(tmp_path)[0].commit == COMMIT


def test_without_a_network_half_a_model_of_another_tool_is_not_used(tmp_path: Path, server: FakeHub) -> None:
    snapshot, _ = find(tmp_path, PINNED)
    shutil.rmtree(tmp_path / "cache")
    (snapshot.directory / "model.safetensors").unlink()
    server.status = 503
    with pytest.raises(StageError, match="cannot be reached"):
        find(tmp_path, PINNED)


def test_a_download_that_is_cut_goes_on_where_it_stopped(tmp_path: Path, server: FakeHub) -> None:
    # The client writes 10 MiB at a time, so a shorter piece would be lost and asked for again.
    weights = hf_models.safetensors(6_000_000)
    server.repositories["org/model"].files["model.safetensors"] = weights
    server.cut_after["model.safetensors"] = 11_000_000
    snapshot, _ = find(tmp_path)
    assert (snapshot.directory / "model.safetensors").read_bytes() == weights
    assert [request.range for request in server.downloads("model.safetensors")] == [None, "bytes=10485760-"]


def test_a_model_without_safetensors_is_refused_before_any_download(tmp_path: Path, server: FakeHub) -> None:
    del server.repositories["org/model"].files["model.safetensors"]
    with pytest.raises(RecipeError, match=r"no safetensors weights.*only pytorch_model\.bin"):
        find(tmp_path)
    assert not [request for request in server.seen if "/resolve/" in request.path]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (HubSource(repository="org/other", revision="main"), r"there is no model at .*/org/other"),
        (HubSource(repository="org/model", revision="v9"), r"has no revision 'v9'"),
        (HubSource(repository="org/m..l", revision="main"), r"ORG/NAME"),
    ],
)
def test_a_model_that_does_not_exist_is_the_recipes_mistake(
    tmp_path: Path, server: FakeHub, source: HubSource, said: str
) -> None:
    with pytest.raises(RecipeError, match=said):
        find(tmp_path, source)


def test_a_gated_model_says_how_to_get_in(tmp_path: Path, server: FakeHub) -> None:
    server.repositories["org/model"].token = "hf_secret"
    server.repositories["org/model"].is_gated = True
    with pytest.raises(
        RecipeError, match=r"is gated.*\n.*Accept its terms at .*/org/model.*/settings/tokens.*HF_TOKEN"
    ):
        find(tmp_path)


def test_the_token_comes_from_the_environment_only(
    tmp_path: Path, server: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.repositories["org/model"].token = "hf_secret"
    (tmp_path / "token").write_text("hf_secret")
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    with pytest.raises(RecipeError, match="private"):
        find(tmp_path)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert find(tmp_path)[0].commit == COMMIT


def test_no_hub_at_all_is_a_failed_stage_with_the_next_step(
    tmp_path: Path, server: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeHub() as other:
        url = other.url
    monkeypatch.setenv("HF_ENDPOINT", url)
    with pytest.raises(StageError, match=r"reached: Connection refused\n.*HF_ENDPOINT.*\./DIRECTORY"):
        find(tmp_path)


def test_a_full_disk_is_not_taken_for_a_broken_network() -> None:
    full = OSError(errno.ENOSPC, "No space left on device", "/cache")
    with pytest.raises(OSError, match="No space left") as caught, hub.errors_of_the_hub(SOURCE):
        raise full
    assert caught.value is full

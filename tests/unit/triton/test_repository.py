"""repository: publish, roll back and remove services beside each other and beside what is not ours."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from scalellm_trt.artefacts.types import Stamp
from scalellm_trt.errors import ArtefactError
from scalellm_trt.triton import repository, repository_check, repository_manifest
from tests.fakes.triton_models import make_engine

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.fakes.publishing_desk import Desk


def test_a_published_service_is_complete_and_recorded(desk: Desk) -> None:
    desk.publish("1")
    assert desk.version_of("chat") == "1"
    (record,) = repository.list_services(desk.root)
    assert (record.name, record.current.recipe, record.current.engine_digest) == (
        "chat",
        "recipes/chat.yaml",
        "engine 1",
    )
    assert record.current.models["chat"].inputs == ("text_input", "max_tokens")
    assert set(record.current.models["chat"].files) == {
        "config.pbtxt", "published.json", "1/service.json", "1/engine/config.json", "1/engine/weights/rank0.bin",
    }  # fmt: skip
    assert repository.describe(desk.root).services == {"chat": ("chat",)}
    assert desk.leftovers() == []
    repository_check.check(desk.root)


def test_the_engines_stamp_is_kept_for_each_version(desk: Desk) -> None:
    stamp = Stamp(
        gpu_name="Tesla T4",
        compute_capability="7.5",
        tensorrt="10.4.0",
        tensorrt_llm="0.13.0",
        driver_floor="555.42.06",
        image="tritonserver:24.09-trtllm-python-py3",
    )
    desk.publish("1", stamp=stamp)
    desk.publish("2")
    (record,) = repository.list_services(desk.root)
    assert record.current.stamp is None
    assert record.previous is not None
    assert record.previous.stamp == stamp


def test_the_engine_is_on_the_disk_once(desk: Desk) -> None:
    desk.publish("1")
    published = desk.root / "chat" / "1" / "engine" / "weights" / "rank0.bin"
    assert published.samefile(desk.directory / "engines" / "1" / "weights" / "rank0.bin")


def test_an_engine_that_cannot_be_linked_is_copied(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    desk.publish("1")
    assert desk.version_of("chat") == "1"
    assert not (desk.root / "chat/1/engine/config.json").samefile(desk.directory / "engines/1/config.json")


def test_a_symbolic_link_in_an_engine_becomes_its_file(desk: Desk) -> None:
    engine = make_engine(desk.directory / "engines" / "1", "1")
    (engine / "weights" / "rank0.bin").rename(desk.directory / "blob")
    (engine / "weights" / "rank0.bin").symlink_to(desk.directory / "blob")
    desk.publish("1")
    assert not (desk.root / "chat/1/engine/weights/rank0.bin").is_symlink()
    assert desk.version_of("chat") == "1"


def test_services_live_side_by_side(desk: Desk) -> None:
    desk.publish("1")
    desk.publish("2", service="code", models=("code", "code_engine"))
    before = (desk.root / "chat").stat().st_ino
    desk.publish("3", service="code", models=("code", "code_engine"))
    assert desk.version_of("chat") == "1"
    assert (desk.root / "chat").stat().st_ino == before
    assert desk.version_of("code") == desk.version_of("code_engine") == "3"


def test_a_model_that_a_service_no_longer_has_goes_away(desk: Desk) -> None:
    desk.publish("1", models=("chat", "chat_engine"))
    desk.publish("2", models=("chat",))
    assert not (desk.root / "chat_engine").exists()
    repository.rollback("chat", root=desk.root, state_dir=desk.state_dir)
    assert desk.version_of("chat") == desk.version_of("chat_engine") == "1"


def test_a_directory_of_somebody_else_is_never_touched(desk: Desk) -> None:
    (desk.root / "chat").mkdir(parents=True)
    (desk.root / "chat" / "config.pbtxt").write_text("mine")
    with pytest.raises(ArtefactError, match=r"triton_repo/chat: was not made by scalellm-trt(.|\n)*Move it away"):
        desk.publish("1")
    assert (desk.root / "chat" / "config.pbtxt").read_text() == "mine"


def test_a_dangling_link_in_the_root_counts_as_somebody_elses(desk: Desk) -> None:
    desk.root.mkdir()
    (desk.root / "chat").symlink_to("nowhere")
    with pytest.raises(ArtefactError, match="was not made by scalellm-trt"):
        desk.publish("1")


def test_a_directory_of_another_service_is_refused_with_its_owner(desk: Desk) -> None:
    desk.publish("1", service="chat", models=("chat", "shared"))
    with pytest.raises(ArtefactError, match=r"belongs to the service chat (.|\n)*repo rm chat"):
        desk.publish("2", service="other", models=("shared",))
    assert desk.version_of("shared") == "1"


def test_a_model_named_like_the_manifest_is_refused(desk: Desk) -> None:
    with pytest.raises(ArtefactError, match=r"manifest\.json"):
        desk.publish("1", models=("manifest.json",))


def test_rollback_returns_and_returns_again(desk: Desk) -> None:
    desk.publish("1")
    desk.publish("2")
    record = repository.rollback("chat", root=desk.root, state_dir=desk.state_dir)
    assert desk.version_of("chat") == "1"
    assert record.current.owner_digest == "digest of 1"
    assert repository.is_current(desk.root, "chat", "digest of 1")
    repository_check.check(desk.root)
    repository.rollback("chat", root=desk.root, state_dir=desk.state_dir)
    assert desk.version_of("chat") == "2"
    assert desk.leftovers() == []


def test_only_one_previous_version_is_kept(desk: Desk) -> None:
    for version in "1234":
        desk.publish(version)
    assert len(list((desk.state_dir / "previous" / "chat").iterdir())) == 1
    repository.rollback("chat", root=desk.root, state_dir=desk.state_dir)
    assert desk.version_of("chat") == "3"


def test_rollback_without_a_previous_version_says_so(desk: Desk) -> None:
    desk.publish("1")
    with pytest.raises(ArtefactError, match="published once only"):
        repository.rollback("chat", root=desk.root, state_dir=desk.state_dir)


def test_rollback_to_a_version_that_somebody_deleted_says_so(desk: Desk) -> None:
    desk.publish("1")
    desk.publish("2")
    for version in (desk.state_dir / "previous" / "chat").iterdir():
        version.rename(desk.directory / "elsewhere")
    with pytest.raises(ArtefactError, match="the previous version is gone"):
        repository.rollback("chat", root=desk.root, state_dir=desk.state_dir)
    assert desk.version_of("chat") == "2"


def test_remove_takes_the_service_and_its_history_only(desk: Desk) -> None:
    desk.publish("1")
    desk.publish("2")
    desk.publish("3", service="code", models=("code",))
    repository.remove("chat", root=desk.root, state_dir=desk.state_dir)
    assert sorted(entry.name for entry in desk.root.iterdir()) == ["code", "manifest.json"]
    assert not list((desk.state_dir / "previous").glob("chat/*"))
    assert [record.name for record in repository.list_services(desk.root)] == ["code"]


@pytest.mark.parametrize("command", [repository.remove, repository.rollback])
def test_an_unknown_service_is_answered_with_the_known_ones(desk: Desk, command: Callable[..., object]) -> None:
    desk.publish("1")
    with pytest.raises(ArtefactError, match=r"no service 'chta'\n  Services here: chat\."):
        command("chta", root=desk.root, state_dir=desk.state_dir)


def test_is_current_notices_another_digest_and_a_changed_file(desk: Desk) -> None:
    assert not repository.is_current(desk.root, "chat", "digest of 1")
    desk.publish("1")
    assert repository.is_current(desk.root, "chat", "digest of 1")
    assert not repository.is_current(desk.root, "chat", "digest of 2")
    (desk.root / "chat" / "config.pbtxt").write_text("changed by hand")
    assert not repository.is_current(desk.root, "chat", "digest of 1")


def test_the_manifest_reads_back_as_it_was_written(desk: Desk) -> None:
    desk.publish("1")
    desk.publish("2")
    manifest = repository_manifest.read(desk.root)
    assert repository_manifest.to_text(manifest) == (desk.root / "manifest.json").read_text()


def test_each_repository_has_its_own_state(tmp_path: Path) -> None:
    one = repository.state_dir_for(tmp_path / "a", tmp_path / "cache")
    other = repository.state_dir_for(tmp_path / "b", tmp_path / "cache")
    assert one != other
    assert one.parent == tmp_path / "cache"
    assert repository.state_dir_for(tmp_path / "x" / ".." / "a", tmp_path / "cache") == one

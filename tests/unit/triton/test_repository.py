from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from scalellm_trt.artefacts import publish as switching
from scalellm_trt.artefacts.publish import untraced
from scalellm_trt.artefacts.types import Stamp
from scalellm_trt.errors import ArtefactError, StageError
from scalellm_trt.triton import repository, repository_check, repository_manifest
from tests.fakes.sudden_death import run_killed_at, steps_of
from tests.fakes.triton_models import make_engine, make_model

if TYPE_CHECKING:
    from collections.abc import Callable

    from scalellm_trt.artefacts.publish import Trace


@dataclass
class Desk:
    """A project's directories, and short calls on its repository."""

    directory: Path

    @property
    def root(self) -> Path:
        return self.directory / "triton_repo"

    @property
    def state_dir(self) -> Path:
        return self.directory / "builds" / ".cache" / "repository"

    def publish(
        self,
        version: str,
        *,
        service: str = "chat",
        models: tuple[str, ...] = ("chat",),
        stamp: Stamp | None = None,
        trace: Trace = untraced,
    ) -> None:
        engine = self.directory / "engines" / version
        if not engine.exists():
            make_engine(engine, version)
        repository.publish(
            [make_model(name, engine=engine, version=version) for name in models],
            service=service,
            recipe=f"recipes/{service}.yaml",
            owner_digest=f"digest of {version}",
            engine_digest=f"engine {version}",
            root=self.root,
            state_dir=self.state_dir,
            stamp=stamp,
            trace=trace,
        )

    def version_of(self, model: str) -> str:
        """Return the version in which all files of a model's directory agree."""
        directory = self.root / model
        found = {
            (directory / "1" / "engine" / "config.json").read_text(),
            (directory / "1" / "engine" / "weights" / "rank0.bin").read_text()[:1],
            (directory / "1" / "service.json").read_text().split('"version": "')[1][0],
            (directory / "config.pbtxt").read_text().split('"version" value { string_value: "')[1][0],
        }
        assert len(found) == 1, f"{directory} is a mixture: {found}"
        return found.pop()

    def leftovers(self) -> list[str]:
        """Name what commands left behind in the state directory besides the lock and previous versions."""
        return sorted({entry.name for entry in self.state_dir.iterdir()} - {"lock", "previous"})


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


@pytest.fixture(autouse=True)
def _no_wait_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed process loses nothing that it wrote; only a power cut needs fsync, which costs seconds here."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


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


@pytest.mark.parametrize(
    ("action", "can_exchange"), [("publish", True), ("publish", False), ("rollback", True), ("remove", True)]
)
def test_a_kill_at_any_step_leaves_old_or_new_and_the_next_command_ends_it(
    tmp_path: Path, action: str, can_exchange: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not can_exchange:
        monkeypatch.setattr(switching, "exchange", lambda one, other: False)
    actions: dict[str, Callable[[Desk, Trace], object]] = {
        "publish": lambda desk, trace: desk.publish("3", models=("chat", "extra"), trace=trace),
        "rollback": lambda desk, trace: repository.rollback(
            "chat", root=desk.root, state_dir=desk.state_dir, trace=trace
        ),
        "remove": lambda desk, trace: repository.remove("chat", root=desk.root, state_dir=desk.state_dir, trace=trace),
    }
    outcomes = {"publish": {"chat": "3", "extra": "3"}, "rollback": {"chat": "1"}, "remove": {}}

    def prepared(name: str) -> Desk:
        desk = Desk(tmp_path / name)
        desk.publish("1")
        desk.publish("2", models=("chat", "extra"))
        make_engine(desk.directory / "engines" / "3", "3")
        return desk

    def found(desk: Desk) -> dict[str, str]:
        return {entry.name: desk.version_of(entry.name) for entry in sorted(desk.root.iterdir()) if entry.is_dir()}

    before = {"chat": "2", "extra": "2"}
    num_steps = len(steps_of(lambda trace: actions[action](prepared("whole"), trace)))
    for index in range(num_steps):
        desk = prepared(str(index))
        assert run_killed_at(index, lambda trace, desk=desk: actions[action](desk, trace))  # type: ignore[misc]
        for name, version in found(desk).items():
            assert version in {before[name], outcomes[action].get(name)}
        if can_exchange and action != "remove":
            assert "chat" in found(desk)
        repository.recover(desk.root, desk.state_dir)
        assert found(desk) in (before, outcomes[action])
        recorded = repository.describe(desk.root).services.get("chat", ())
        assert sorted(recorded) == sorted(found(desk))
        assert desk.leftovers() == []
        if recorded:
            repository_check.check(desk.root)
        actions["publish"](desk, untraced)
        assert found(desk) == {"chat": "3", "extra": "3"}


def test_recover_tells_whether_there_was_something_to_finish(desk: Desk) -> None:
    desk.publish("1")
    assert not repository.recover(desk.root, desk.state_dir)
    steps = steps_of(lambda trace: desk.publish("2", trace=trace))
    assert run_killed_at(steps.index("switch chat"), lambda trace: desk.publish("3", trace=trace))
    assert repository.recover(desk.root, desk.state_dir)
    assert desk.version_of("chat") == "3"


def test_an_engine_that_is_missing_is_named_and_nothing_is_left(desk: Desk) -> None:
    desk.publish("1")
    with pytest.raises(ArtefactError, match="nowhere: is missing"):
        repository.publish(
            [make_model("chat", engine=desk.directory / "nowhere")],
            service="chat",
            recipe="r.yaml",
            owner_digest="x",
            engine_digest="y",
            root=desk.root,
            state_dir=desk.state_dir,
        )
    assert desk.version_of("chat") == "1"
    assert desk.leftovers() == []


def test_a_file_name_that_leads_out_of_the_model_is_refused(desk: Desk) -> None:
    model = make_model("chat", source=Path(__file__))
    bad = type(model)(
        **{field: getattr(model, field) for field in model.__slots__} | {"source_files": {"../x": Path(__file__)}}
    )
    with pytest.raises(ArtefactError, match="leads out"):
        repository.publish(
            [bad],
            service="chat",
            recipe="r",
            owner_digest="x",
            engine_digest="y",
            root=desk.root,
            state_dir=desk.state_dir,
        )


def test_a_disk_that_refuses_is_a_stage_error(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, *args: object, **kwargs: object) -> int:
        raise OSError(28, "No space left on device", str(self))

    desk.publish("1")
    make_engine(desk.directory / "engines" / "2", "2")
    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(StageError, match="No space left on device"):
        desk.publish("2")
    monkeypatch.undo()
    assert desk.version_of("chat") == "1"
    assert desk.leftovers() == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 9}', '{"schema": 1, "services": {"a": {"name": 3}}}'])
def test_a_damaged_manifest_is_an_artefact_error_with_its_path(desk: Desk, text: str) -> None:
    desk.root.mkdir()
    (desk.root / "manifest.json").write_text(text)
    with pytest.raises(ArtefactError, match=r"triton_repo/manifest\.json"):
        repository.list_services(desk.root)


def test_the_manifest_reads_back_as_it_was_written(desk: Desk) -> None:
    desk.publish("1")
    desk.publish("2")
    manifest = repository_manifest.read(desk.root)
    assert repository_manifest.to_text(manifest) == (desk.root / "manifest.json").read_text()


def test_the_check_names_missing_and_shortened_files(desk: Desk) -> None:
    desk.publish("1")
    (desk.root / "chat/1/service.json").unlink()
    os.truncate(desk.root / "chat/config.pbtxt", 3)
    with pytest.raises(ArtefactError) as caught:
        repository_check.check(desk.root)
    assert "chat/1/service.json is missing" in str(caught.value)
    assert "chat/config.pbtxt has 3 bytes, published were" in str(caught.value)


@pytest.mark.parametrize("name", [".hidden", "notes"])
def test_the_check_names_a_directory_that_stops_tritonserver(desk: Desk, name: str) -> None:
    desk.publish("1")
    (desk.root / name).mkdir()
    with pytest.raises(ArtefactError, match=f"{name}/ is not a model"):
        repository_check.check(desk.root)


def test_the_check_lets_a_model_of_somebody_else_pass(desk: Desk) -> None:
    desk.publish("1")
    (desk.root / "theirs" / "1").mkdir(parents=True)
    repository_check.check(desk.root)


def test_the_check_refuses_a_missing_and_an_empty_repository(desk: Desk) -> None:
    with pytest.raises(ArtefactError, match="there is no model repository here"):
        repository_check.check(desk.root)
    desk.root.mkdir()
    with pytest.raises(ArtefactError, match="is empty"):
        repository_check.check(desk.root)


def test_each_repository_has_its_own_state(tmp_path: Path) -> None:
    one = repository.state_dir_for(tmp_path / "a", tmp_path / "cache")
    other = repository.state_dir_for(tmp_path / "b", tmp_path / "cache")
    assert one != other
    assert one.parent == tmp_path / "cache"
    assert repository.state_dir_for(tmp_path / "x" / ".." / "a", tmp_path / "cache") == one

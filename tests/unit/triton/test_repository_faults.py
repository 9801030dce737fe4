"""repository: killed, full, damaged or misused, it is what it was before, or what it was to become."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from scalellm_trt.artefacts import publish as switching
from scalellm_trt.artefacts.publish import untraced
from scalellm_trt.errors import ArtefactError, StageError
from scalellm_trt.triton import repository, repository_check
from tests.fakes.publishing_desk import Desk
from tests.fakes.sudden_death import run_killed_at, steps_of
from tests.fakes.triton_models import make_engine, make_model

if TYPE_CHECKING:
    from collections.abc import Callable

    from scalellm_trt.artefacts.publish import Trace


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

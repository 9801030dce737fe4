from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from scalellm_trt.artefacts import publish
from scalellm_trt.artefacts.publish import Journal, Switch
from scalellm_trt.errors import ArtefactError
from tests.fakes.sudden_death import run_killed_at, steps_of

if TYPE_CHECKING:
    from pathlib import Path


class Place:
    """A root with an old `a`, `b` and `gone`; staged a new `a` and `fresh`; a journal that switches them all."""

    def __init__(self, directory: Path) -> None:
        self.root, self.state_dir = directory / "root", directory / "state"
        for name in ("a", "gone"):
            self._write(self.root / name, "old")
        for name in ("a", "fresh"):
            self._write(self.state_dir / "staged" / name, "new")
        self.journal = Journal(
            switches=(
                Switch(live="a", staged="staged/a", mark="new", retired="retired/a"),
                Switch(live="fresh", staged="staged/fresh", mark="new", retired="retired/fresh"),
                Switch(live="gone", staged=None, mark=None, retired="retired/gone"),
            ),
            outcome={"outcome.txt": "done\n"},
        )

    def _write(self, directory: Path, content: str) -> None:
        directory.mkdir(parents=True)
        publish.write_mark(directory, content)
        for name in ("one", "two"):
            (directory / name).write_text(content)

    def contents(self) -> dict[str, set[str]]:
        return {
            directory.name: {(directory / name).read_text() for name in ("one", "two")}
            for directory in sorted(self.root.iterdir())
            if directory.is_dir()
        }

    def is_switched(self) -> bool:
        return (
            self.contents() == {"a": {"new"}, "fresh": {"new"}}
            and (self.root / "outcome.txt").read_text() == "done\n"
            and (self.state_dir / "retired" / "a" / "one").read_text() == "old"
            and (self.state_dir / "retired" / "gone" / "one").read_text() == "old"
            and publish.pending(self.state_dir) is None
        )


@pytest.fixture(autouse=True)
def _no_wait_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed process loses nothing that it wrote; only a power cut needs fsync, which costs seconds here."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def _without_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "exchange", lambda one, other: False)


def test_exchange_lets_two_directories_change_places(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "name").write_text(name)
    if not publish.exchange(tmp_path / "one", tmp_path / "other"):
        pytest.skip("this file system cannot exchange")
    assert (tmp_path / "one" / "name").read_text() == "other"
    assert (tmp_path / "other" / "name").read_text() == "one"


def test_exchange_reports_a_missing_path(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    with pytest.raises(OSError, match="No such file") as caught:
        publish.exchange(tmp_path / "one", tmp_path / "missing")
    assert caught.value.errno == errno.ENOENT


def test_a_switch_replaces_places_and_removes(place: Place) -> None:
    publish.begin(place.journal, place.state_dir)
    assert publish.finish(place.root, place.state_dir)
    assert place.is_switched()


def test_finishing_without_a_journal_does_nothing(place: Place) -> None:
    before = place.contents()
    assert not publish.finish(place.root, place.state_dir)
    assert place.contents() == before


@pytest.mark.parametrize("can_exchange", [True, False])
def test_a_kill_before_any_step_leaves_old_or_new_and_the_next_call_finishes(
    tmp_path: Path, can_exchange: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not can_exchange:
        _without_exchange(monkeypatch)

    def switch(at: Place, trace: publish.Trace) -> None:
        publish.begin(at.journal, at.state_dir)
        publish.finish(at.root, at.state_dir, trace=trace)

    num_steps = len(steps_of(lambda trace: switch(Place(tmp_path / "whole"), trace)))
    assert num_steps >= 6
    for index in range(num_steps):
        place = Place(tmp_path / str(index))
        assert run_killed_at(index, lambda trace, place=place: switch(place, trace))  # type: ignore[misc]
        contents = place.contents()
        assert all(content in ({"old"}, {"new"}) for content in contents.values())
        if can_exchange:
            assert "a" in contents, "an existing directory is there at all times"
        assert publish.finish(place.root, place.state_dir)
        assert place.is_switched(), f"killed before step {index}"


def test_a_switch_killed_again_and_again_still_ends(place: Place) -> None:
    publish.begin(place.journal, place.state_dir)
    # Each try gets one step further, up to the last two: the outcome is written again until the journal is gone.
    for _ in range(8):
        assert run_killed_at(1, lambda trace: publish.finish(place.root, place.state_dir, trace=trace))
    assert publish.finish(place.root, place.state_dir)
    assert place.is_switched()


def test_a_staged_directory_that_is_gone_is_named_and_nothing_is_lost(place: Place) -> None:
    publish.begin(place.journal, place.state_dir)
    (place.state_dir / "staged" / "a").rename(place.state_dir / "elsewhere")
    with pytest.raises(ArtefactError, match=r"staged/a: the staged directory of an interrupted switch is gone"):
        publish.finish(place.root, place.state_dir)
    assert place.contents()["a"] == {"old"}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 99}', '{"schema": 1, "switches": [{"live": "a"}]}'])
def test_a_damaged_journal_is_an_artefact_error_with_its_path(place: Place, text: str) -> None:
    (place.state_dir / publish.JOURNAL_NAME).write_text(text)
    with pytest.raises(ArtefactError, match=r"journal\.json"):
        publish.finish(place.root, place.state_dir)


def test_no_temporary_file_appears_in_the_root(place: Place) -> None:
    seen: set[str] = set()
    publish.begin(place.journal, place.state_dir)
    publish.finish(
        place.root, place.state_dir, trace=lambda step: seen.update(entry.name for entry in place.root.iterdir())
    )
    assert seen <= {"a", "gone", "fresh", "outcome.txt"}


@pytest.mark.parametrize("text", [None, "", "no json", "[]", '{"transaction": 3}'])
def test_a_directory_without_a_readable_mark_has_none(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / publish.MARK_NAME).write_text(text)
    assert publish.read_mark(tmp_path) is None

from __future__ import annotations

import hashlib
import os
import threading
from typing import TYPE_CHECKING

import pytest

from scalellm_trt.model_source.store import Store

if TYPE_CHECKING:
    from pathlib import Path


def fill(directory: Path) -> None:
    (directory / "file").write_text("whole")


def test_a_directory_is_made_once(tmp_path: Path) -> None:
    made: list[Path] = []

    def make(directory: Path) -> None:
        made.append(directory)
        fill(directory)

    for _ in range(2):
        directory = Store(tmp_path).find_or_make(tmp_path / "files" / "a", make)
    assert (directory / "file").read_text() == "whole"
    assert made == [tmp_path / "files" / "a.partial"]


def test_what_failed_leaves_nothing(tmp_path: Path) -> None:
    def fail(directory: Path) -> None:
        fill(directory)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Store(tmp_path).find_or_make(tmp_path / "files" / "a", fail)
    assert list((tmp_path / "files").iterdir()) == []


def test_what_a_kill_left_is_not_used(tmp_path: Path) -> None:
    leftover = tmp_path / "files" / "a.partial"
    leftover.mkdir(parents=True)
    (leftover / "half").touch()
    directory = Store(tmp_path).find_or_make(tmp_path / "files" / "a", fill)
    assert [path.name for path in directory.iterdir()] == ["file"]
    assert not leftover.exists()


def test_a_second_build_waits_for_the_first(tmp_path: Path) -> None:
    is_making, may_end, made = threading.Event(), threading.Event(), []

    def slow(directory: Path) -> None:
        made.append(directory)
        is_making.set()
        assert may_end.wait(10)
        fill(directory)

    def build() -> None:
        Store(tmp_path).find_or_make(tmp_path / "files" / "a", slow)

    builds = [threading.Thread(target=build) for _ in range(2)]
    for build_thread in builds:
        build_thread.start()
    assert is_making.wait(10)
    may_end.set()
    for build_thread in builds:
        build_thread.join(10)
    assert len(made) == 1


def test_a_file_is_hashed_again_only_when_it_changed(tmp_path: Path) -> None:
    store, file = Store(tmp_path / "cache"), tmp_path / "file"
    file.write_bytes(b"one")
    assert store.sha256(file) == hashlib.sha256(b"one").hexdigest()
    (note,) = (tmp_path / "cache" / "digests").iterdir()
    note.write_text(note.read_text().replace(hashlib.sha256(b"one").hexdigest(), "remembered"))
    assert store.sha256(file) == "remembered"
    file.write_bytes(b"two")
    assert store.sha256(file) == hashlib.sha256(b"two").hexdigest()


def test_a_restored_mtime_does_not_hide_a_change(tmp_path: Path) -> None:
    store, file = Store(tmp_path / "cache"), tmp_path / "file"
    file.write_bytes(b"one")
    before = file.stat()
    store.sha256(file)
    file.write_bytes(b"two")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert store.sha256(file) == hashlib.sha256(b"two").hexdigest()


@pytest.mark.parametrize("content", ["", "[]", "{}", "no json"])
def test_a_broken_note_only_costs_time(tmp_path: Path, content: str) -> None:
    store, file = Store(tmp_path / "cache"), tmp_path / "file"
    file.write_bytes(b"one")
    store.sha256(file)
    (note,) = (tmp_path / "cache" / "digests").iterdir()
    note.write_text(content)
    assert store.sha256(file) == hashlib.sha256(b"one").hexdigest()


def test_the_digest_depends_on_names_and_contents(tmp_path: Path) -> None:
    store = Store(tmp_path / "cache")
    digests = set()
    for name, content in (("a", b"1"), ("a", b"2"), ("b", b"1")):
        (tmp_path / name).write_bytes(content)
        digests.add(store.digest(tmp_path, [name]))
    assert len(digests) == 3

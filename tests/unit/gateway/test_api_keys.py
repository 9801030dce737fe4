from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from scalellm_trt.cli import command_line
from scalellm_trt.errors import RecipeError
from scalellm_trt.gateway import api_keys, request_log
from scalellm_trt.gateway.api_keys import KeyRing

if TYPE_CHECKING:
    from pathlib import Path


def _add(file: Path, name: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert command_line.run(["key", "add", name, "--file", str(file)]) == 0
    return capsys.readouterr().out.strip()


def test_a_key_is_shown_once_and_only_its_hash_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "keys"
    first, second = _add(file, "alice", capsys), _add(file, "bob", capsys)
    assert first.startswith("sk-")
    assert len(first) >= 43
    assert first not in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    assert not api_keys.is_readable_by_others(file)
    ring = KeyRing(None, file)
    assert [ring.name_of(key) for key in (first, second, first[:-1], "", "ä")] == ["alice", "bob", None, None, None]
    assert command_line.run(["key", "ls", "--file", str(file)]) == 0
    assert capsys.readouterr().out.split() == ["alice", "bob"]


def test_a_name_is_taken_once_and_can_be_removed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "keys"
    _add(file, "alice", capsys)
    assert command_line.run(["key", "add", "alice", "--file", str(file)]) == 2
    assert "'alice' has a key already" in capsys.readouterr().err
    assert command_line.run(["key", "add", "Al ice", "--file", str(file)]) == 2
    assert command_line.run(["key", "rm", "bob", "--file", str(file)]) == 2
    assert "Keys here: alice." in capsys.readouterr().err
    assert command_line.run(["key", "rm", "alice", "--file", str(file)]) == 0
    assert dict(api_keys.read(file)) == {}


def test_a_file_without_keys_lets_nobody_in(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("# none\n\n")
    ring = KeyRing(None, tmp_path / "keys")
    assert not ring.is_open
    assert ring.name_of("") is None


def test_the_key_of_the_environment_is_good_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(f"a sha256:{api_keys.digest('one')}\n")
    ring = KeyRing("two", tmp_path / "keys")
    assert [ring.name_of(key) for key in ("one", "two")] == ["a", "SCALELLM_API_KEY"]
    assert KeyRing(None, None).is_open


def test_every_wrong_line_is_reported_without_its_content(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"a sha256:{'0' * 64}\nsk-pasted-secret\nb sha256:12\na sha256:{'1' * 64}\n")
    with pytest.raises(RecipeError) as error:
        KeyRing(None, file)
    assert [problem.line for problem in error.value.problems] == [2, 3, 4]
    assert "pasted" not in str(error.value)
    with pytest.raises(RecipeError, match="scalellm-trt key add"):
        KeyRing(None, tmp_path / "none")


def test_a_changed_file_is_read_again_and_a_damaged_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(api_keys, "CHECK_EVERY_S", 0.0)
    monkeypatch.setattr(request_log.LOGGER, "propagate", True)
    file = tmp_path / "keys"
    api_keys.write(file, {"a": api_keys.digest("one")})
    ring = KeyRing(None, file)
    api_keys.write(file, {"b": api_keys.digest("two")})
    assert [ring.name_of(key) for key in ("one", "two")] == [None, "b"]
    file.write_text("rubbish\n")
    assert ring.name_of("two") == "b"
    file.unlink()
    assert ring.name_of("two") == "b"
    assert "the key file is damaged" in caplog.text
    assert "others may read" not in caplog.text
    api_keys.write(file, {"c": api_keys.digest("three")})
    file.chmod(0o644)
    assert ring.name_of("three") == "c"
    assert "others may read the key file" in caplog.text


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    api_keys.write(file, {"a": "0" * 64})
    api_keys.write(file, {"b": "1" * 64})
    assert os.listdir(tmp_path) == ["keys"]  # noqa: PTH208
    assert dict(api_keys.read(file)) == {"b": "1" * 64}

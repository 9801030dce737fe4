from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from scalellm_trt.errors import RecipeError
from scalellm_trt.recipe.file_text import MAX_BYTES, read_text

if TYPE_CHECKING:
    from collections.abc import Callable

    Write = Callable[..., Path]


def refusal(path: Path) -> str:
    with pytest.raises(RecipeError) as caught:
        read_text(path)
    return str(caught.value).splitlines()[0]


def test_a_byte_order_mark_is_not_part_of_the_text(write: Write) -> None:
    assert read_text(write(b"\xef\xbb\xbfname: a")) == "name: a"


def test_a_missing_file_is_named_as_the_user_wrote_it() -> None:
    assert refusal(Path("nowhere/r.yaml")) == "nowhere/r.yaml: does not exist"


def test_a_directory_is_not_a_recipe(tmp_path: Path) -> None:
    assert refusal(tmp_path).endswith("is a directory")


def test_a_named_pipe_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert refusal(tmp_path / "pipe").endswith("is not a regular file")


def test_a_path_that_no_system_call_takes_is_refused() -> None:
    assert "cannot be read" in refusal(Path("a\0b"))
    assert "cannot be read" in refusal(Path("a" * 5000))


def test_a_file_of_the_largest_size_is_read_and_one_byte_more_is_not(write: Write) -> None:
    assert len(read_text(write(b"#" * MAX_BYTES))) == MAX_BYTES
    assert refusal(write(b"#" * (MAX_BYTES + 1))) == "r.yaml: is larger than 64 KiB"


def test_bytes_that_are_not_utf8_are_named_with_their_line(write: Write) -> None:
    assert refusal(write(b"name: a\nmodel: \xe9\n")) == "r.yaml:2: byte 0xe9 is not UTF-8"

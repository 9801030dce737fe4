"""`tensor_file`: what a header may say, and how a file is laid out."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from scalellm_trt.checkpoint.tensor_file import (
    TensorFile,
    TensorFileWriter,
    TensorLayout,
    render_header,
    storage_order,
)
from scalellm_trt.errors import ArtefactError, StageError
from tests.fakes.tiny_models import write_tensors

if TYPE_CHECKING:
    from pathlib import Path


def write_file(path: Path, header: object, data: bytes = bytes(64)) -> None:
    text = json.dumps(header).encode() if not isinstance(header, bytes) else header
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def entry(**changes: object) -> dict[str, Any]:
    return {"x": {"dtype": "F32", "shape": [4, 4], "data_offsets": [0, 64], **changes}}


def test_a_sound_file_is_read(tmp_path: Path) -> None:
    write_file(tmp_path / "a", entry())
    file = TensorFile(tmp_path / "a")
    assert (file.entries["x"].shape, file.raw("x").shape, file.dtype("x")) == ((4, 4), (4, 4), "F32")


@pytest.mark.parametrize(
    "header",
    [
        b"not json",
        [],
        {"x": {}},
        {"x": 3},
        entry(data_offsets=[0, 68]),
        entry(data_offsets=[-8, 56]),
        entry(data_offsets=[64, 0]),
        entry(data_offsets=[0, 32]),
        entry(shape=[4, -4]),
        entry(shape=[4, "4"]),
        entry(shape=[1 << 40, 1 << 40]),
    ],
)
def test_a_header_that_cannot_be_is_refused(tmp_path: Path, header: object) -> None:
    write_file(tmp_path / "a", header)
    with pytest.raises(ArtefactError, match="a: is not a complete safetensors file"):
        TensorFile(tmp_path / "a")


@pytest.mark.parametrize("content", [b"", b"\x01", struct.pack("<Q", 1 << 60) + b"{}"])
def test_a_file_too_short_for_its_header_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(ArtefactError, match="is not a complete safetensors file"):
        TensorFile(tmp_path / "a")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="No such file"):
        TensorFile(tmp_path / "a")


def test_an_unknown_element_type_is_refused_only_when_read(tmp_path: Path) -> None:
    write_file(tmp_path / "a", entry(dtype="F4"))
    with pytest.raises(ArtefactError, match=r"x: element type F4 is not supported\n.*Supported: F32"):
        TensorFile(tmp_path / "a").raw("x")


def test_an_empty_tensor_is_read(tmp_path: Path) -> None:
    write_file(tmp_path / "a", entry(shape=[0, 4], data_offsets=[0, 0]))
    assert TensorFile(tmp_path / "a").raw("x").shape == (0, 4)


def test_the_header_is_padded_and_tensors_are_aligned_to_their_type() -> None:
    layouts = {
        "bytes": TensorLayout(dtype="I8", shape=(3,)),
        "halves": TensorLayout(dtype="F16", shape=(3,)),
        "floats": TensorLayout(dtype="F32", shape=(1,)),
    }
    header = render_header(layouts)
    assert (len(header) % 8, storage_order(layouts)) == (0, ["floats", "halves", "bytes"])
    offsets = {name: fields["data_offsets"] for name, fields in json.loads(header[8:]).items() if name in layouts}
    assert offsets == {"floats": [0, 4], "halves": [4, 10], "bytes": [10, 13]}


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    values = np.arange(6, dtype=np.float16).reshape(2, 3)
    write_tensors(tmp_path / "a", {"x": ("F16", values), "y": ("BF16", np.zeros((1, 0), np.uint16))})
    np.testing.assert_array_equal(TensorFile(tmp_path / "a").raw("x"), values)


def test_a_tensor_of_another_size_than_announced_is_our_bug(tmp_path: Path) -> None:
    layouts = {"x": TensorLayout(dtype="F16", shape=(4,))}
    with (
        pytest.raises(AssertionError, match="x: wrote 6 bytes, announced 8"),
        TensorFileWriter(tmp_path / "a", layouts) as writer,
    ):
        writer.write("x", [np.zeros(3, np.float16)])
    with pytest.raises(AssertionError, match=r"\d+ of \d+ bytes"), TensorFileWriter(tmp_path / "a", layouts):
        pass


def test_a_directory_that_is_not_there_is_a_stage_error(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="cannot be written: No such file"):
        TensorFileWriter(tmp_path / "no" / "a", {})

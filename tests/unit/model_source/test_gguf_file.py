from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import gguf
import numpy as np
import pytest

from scalellm_trt.errors import ArtefactError, UnsupportedError
from scalellm_trt.model_source.gguf_file import GgufFile
from tests.fakes import gguf_models

if TYPE_CHECKING:
    from pathlib import Path


def header(*, version: int = 3, num_tensors: int = 0, num_values: int = 0) -> bytes:
    return struct.pack("<4sIQQ", b"GGUF", version, num_tensors, num_values)


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def test_metadata_and_tensors_are_those_that_the_gguf_package_reads(tmp_path: Path) -> None:
    path = gguf_models.write(tmp_path / "m.gguf", quantization=gguf.GGMLQuantizationType.Q4_1)
    ours, theirs = GgufFile(path), gguf.GGUFReader(path)
    for field in theirs.fields.values():
        if not field.name.startswith("GGUF."):
            assert ours.metadata[field.name] == field.contents(), field.name
    assert list(ours.tensors) == [tensor.name for tensor in theirs.tensors]
    for tensor in theirs.tensors:
        found = ours.tensors[tensor.name]
        assert found.shape == tuple(reversed(tensor.shape.tolist()))
        assert found.type_name == tensor.tensor_type.name
        np.testing.assert_array_equal(ours.raw_rows(found).ravel(), tensor.data.view(np.uint8).ravel())


def test_a_value_of_another_type_is_named(tmp_path: Path) -> None:
    file = GgufFile(gguf_models.write(tmp_path / "m.gguf", metadata={"a": "text", "b": True, "c": 3}))
    with pytest.raises(ArtefactError, match="metadata a is str, not int"):
        file.require("a", int)
    with pytest.raises(ArtefactError, match="metadata b is bool, not int"):
        file.get("b", int, 0)
    with pytest.raises(ArtefactError, match="metadata d is missing"):
        file.require("d", str)
    assert file.require("c", float) == 3.0
    with pytest.raises(ArtefactError, match="metadata a is no array of strings"):
        file.strings("a")
    with pytest.raises(ArtefactError, match=r"metadata tokenizer\.ggml\.tokens is no array of numbers"):
        file.numbers("tokenizer.ggml.tokens")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"PK\3\4" + b"\0" * 40, "it begins with b'PK"),
        (b"GGUF", "no whole GGUF file"),
        (header(num_values=1), "no whole GGUF file"),
        (header(num_values=1) + struct.pack("<Q", 1 << 60), "cut short"),
        (header(num_values=1) + text("a") + struct.pack("<I", 99), "unknown type 99"),
        (header(num_values=1) + text("a") + struct.pack("<IIQ", 9, 9, 1), "elements of the unknown type 9"),
        (header(num_values=1) + text("a") + struct.pack("<IIQ", 9, 6, 1 << 61), "cut short"),
        (header(num_values=1) + text("a") + struct.pack("<IIQ", 9, 8, 1 << 61), "no whole GGUF file"),
        (header(num_tensors=1) + text("t") + struct.pack("<I", 9), "9 dimensions"),
        (header(num_tensors=1) + text("t") + struct.pack("<IQIQ", 1, 1 << 40, 0, 0), "ends after the file's"),
        (header(num_tensors=1) + text("t") + struct.pack("<IQQIQ", 2, 32, 1 << 62, 2, 0), "ends after the file's"),
        (header(num_tensors=1) + text("t") + struct.pack("<IQIQ", 1, 33, 2, 0), "no multiple of Q4_0's 32"),
        (header(num_values=1) + text("general.alignment") + struct.pack("<II", 4, 0), "alignment is 0"),
    ],
)
def test_a_damaged_file_is_refused_without_a_traceback(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(content)
    with pytest.raises(ArtefactError, match="Download or convert it again") as caught:
        GgufFile(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    path = gguf_models.write(tmp_path / "m.gguf")
    content = path.read_bytes()
    for size in range(0, len(content), len(content) // 97):
        (tmp_path / "cut.gguf").write_bytes(content[:size])
        with pytest.raises(ArtefactError):
            GgufFile(tmp_path / "cut.gguf")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (header(version=1), "is GGUF version 1"),
        (header(version=3 << 24), "little-endian"),
        (header(num_tensors=1) + text("t") + struct.pack("<IQIQ", 1, 32, 9999, 0), "unknown type 9999"),
        (header(num_values=1) + text("split.count") + struct.pack("<II", 4, 2), "llama-gguf-split --merge"),
    ],
)
def test_what_cannot_be_read_is_unsupported(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(content)
    with pytest.raises(UnsupportedError, match=said):
        GgufFile(path)

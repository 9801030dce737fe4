from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from safetensors.numpy import load_file

from scalellm_trt.model_source import layout, safetensors_file
from scalellm_trt.model_source.safetensors_file import TensorEntry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy.typing as npt

ENTRIES = [TensorEntry(name=name, shape=(4, 2), dtype="float16") for name in "abc"]


def rows(entry: TensorEntry) -> Iterator[npt.NDArray[np.float16]]:
    for row in range(4):
        yield np.full((1, 2), ord(entry.name) + row, dtype=np.float16)


def test_a_small_model_is_one_file_that_the_library_reads(tmp_path: Path) -> None:
    safetensors_file.write_model(tmp_path, ENTRIES, rows)
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]
    tensors = load_file(tmp_path / "model.safetensors")
    assert list(tensors) == ["a", "b", "c"]
    np.testing.assert_array_equal(tensors["b"], [[98, 98], [99, 99], [100, 100], [101, 101]])


def test_a_large_model_is_cut_into_shards_with_an_index(tmp_path: Path) -> None:
    safetensors_file.write_model(tmp_path, ENTRIES, rows, shard_bytes=40)
    index = json.loads((tmp_path / layout.INDEX_FILE).read_text())
    first, second = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    assert index == {"metadata": {"total_size": 48}, "weight_map": {"a": first, "b": first, "c": second}}
    assert layout.weight_files(tmp_path / layout.INDEX_FILE) == [first, second]
    assert list(load_file(tmp_path / first)) == ["a", "b"]
    np.testing.assert_array_equal(load_file(tmp_path / second)["c"][:, 0], [99, 100, 101, 102])


def test_a_tensor_larger_than_a_shard_gets_one_of_its_own(tmp_path: Path) -> None:
    safetensors_file.write_model(tmp_path, ENTRIES, rows, shard_bytes=1)
    assert len(list(tmp_path.glob("model-*-of-00003.safetensors"))) == 3


def test_data_that_does_not_fill_its_tensor_is_a_bug(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="a: 4 bytes of 16"):
        safetensors_file.write_model(tmp_path, ENTRIES, lambda entry: iter([np.zeros(2, dtype=np.float16)]))

"""engine_files: an engine's directory is whole, of the right version and limits, or every fault is named."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from scalellm_trt.backends import engine_files
from scalellm_trt.errors import ArtefactError
from tests.fakes.plans import gpu_plan

if TYPE_CHECKING:
    from pathlib import Path

LIMITS = {"max_batch_size": 4, "max_input_len": 64, "max_seq_len": 64, "max_num_tokens": 32}


def write(directory: Path, *, ranks: int = 1, **changes: Any) -> None:
    for rank in range(ranks):
        (directory / f"rank{rank}.engine").write_bytes(b"engine")
    config = {
        "version": "1.2.1",
        "pretrained_config": {"logits_dtype": "float32", "mapping": {"world_size": ranks}},
        "build_config": LIMITS,
        **changes,
    }
    (directory / "config.json").write_text(json.dumps(config))


def test_a_whole_engine_has_no_fault_though_the_builder_raised_max_input_len(tmp_path: Path) -> None:
    write(tmp_path)
    assert engine_files.problems(tmp_path, gpu_plan(), "1.2.1") == []
    assert engine_files.read_config(tmp_path).logits_dtype == "float32"


def test_every_fault_is_named(tmp_path: Path) -> None:
    write(tmp_path, version="1.1.0", build_config={**LIMITS, "max_num_tokens": 8192})
    (tmp_path / "rank0.engine").write_bytes(b"")
    assert engine_files.problems(tmp_path, gpu_plan(tp_size=2), "1.2.1") == [
        "rank1.engine is missing",
        "rank0.engine is empty",
        "config.json is of TensorRT-LLM 1.1.0, the toolchain has 1.2.1",
        "config.json is of 1 rank(s), the plan has 2",
        "config.json has max_num_tokens 8192, the plan has 32",
    ]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": "1.2.1", "pretrained_config": {}, "build_config": {}}'])
def test_a_config_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ArtefactError, match="cannot be read as an engine's configuration"):
        engine_files.read_config(tmp_path)
    assert "cannot be read" in engine_files.problems(tmp_path, gpu_plan(), "1.2.1")[-1]

"""Typed Triton models for tests, and a directory that stands for an engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scalellm_trt.artefacts.types import TritonModel, TritonTensor

if TYPE_CHECKING:
    from pathlib import Path

TEXT_INPUT = TritonTensor(name="text_input", data_type="TYPE_STRING", dims=(1,))
TEXT_OUTPUT = TritonTensor(name="text_output", data_type="TYPE_STRING", dims=(1,))


def make_engine(directory: Path, content: str) -> Path:
    """Write an engine of two files, one of them in a folder."""
    (directory / "weights").mkdir(parents=True)
    (directory / "config.json").write_text(content)
    (directory / "weights" / "rank0.bin").write_bytes(content.encode() * 100)
    return directory


def make_model(name: str, *, engine: Path | None = None, source: Path | None = None, version: str = "1") -> TritonModel:
    """Describe a python model that echoes text."""
    return TritonModel(
        name=name,
        backend="python",
        max_batch_size=1,
        inputs=(TEXT_INPUT, TritonTensor(name="max_tokens", data_type="TYPE_INT32", dims=(1,), optional=True)),
        outputs=(TEXT_OUTPUT, TritonTensor(name="output_ids", data_type="TYPE_INT32", dims=(-1,))),
        parameters={"version": version, "execution_mode": "default"},
        default_model_filename="model.py",
        source_files={} if source is None else {"model.py": source},
        directories={} if engine is None else {"engine": engine},
        settings={"version": version, "max_queue_size": 8},
    )

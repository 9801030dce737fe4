"""`compile_checkpoint`: what it writes, what it holds in memory, and how it fails."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from scalellm_trt.backends.openvino_compile import MODEL_FILE, WEIGHTS_FILE, compile_checkpoint
from scalellm_trt.errors import ArtefactError, StageError
from tests.fakes.tiny_checkpoints import write_checkpoint
from tests.fakes.tiny_models import tiny_spec

pytest.importorskip("openvino")

ROOT = Path(__file__).parents[3]


def ignore(_activity: str, _share: float) -> None:
    """Take progress and do nothing with it."""


def test_tied_embeddings_are_stored_once(tmp_path: Path) -> None:
    sizes = {}
    for is_tied in (False, True):
        directory = tmp_path / str(is_tied)
        spec = tiny_spec(tie_word_embeddings=is_tied)
        write_checkpoint(directory / "checkpoint", spec)
        (directory / "engine").mkdir()
        compile_checkpoint(directory / "checkpoint", directory / "engine", ignore)
        sizes[is_tied] = (directory / "engine" / WEIGHTS_FILE).stat().st_size
    assert sizes[False] - sizes[True] == spec.vocab_size * spec.hidden_size * 2


def test_every_16_bit_matrix_is_marked_to_stay_16_bit(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "checkpoint", tiny_spec())
    compile_checkpoint(tmp_path / "checkpoint", tmp_path, ignore)
    layers = ElementTree.parse(tmp_path / MODEL_FILE).iter("layer")
    marks = [
        layer.find("rt_info/attribute[@name='decompression']") for layer in layers if layer.get("type") == "Convert"
    ]
    assert sum(mark is not None for mark in marks) == 2 * 5 + 2


def test_quantized_weights_leave_no_scratch_file_behind(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "checkpoint", tiny_spec(), quant_algo="W4A16")
    (tmp_path / "engine").mkdir()
    compile_checkpoint(tmp_path / "checkpoint", tmp_path / "engine", ignore)
    assert {path.name for path in (tmp_path / "engine").iterdir()} == {MODEL_FILE, WEIGHTS_FILE, "tokenizer.json"}


def test_compiling_twice_writes_the_same_bytes(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "checkpoint", tiny_spec(), quant_algo="W8A16")
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        compile_checkpoint(tmp_path / "checkpoint", tmp_path / name, ignore)
    for name in (MODEL_FILE, WEIGHTS_FILE):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, tiny_spec())
    path = tmp_path / "rank0.safetensors"
    path.write_bytes(path.read_bytes().replace(b"layers.1.mlp.proj.weight", b"layers.1.mlp.prox.weight"))
    with pytest.raises(ArtefactError, match=r"transformer\.layers\.1\.mlp\.proj\.weight is missing"):
        compile_checkpoint(tmp_path, tmp_path, ignore)


def test_a_directory_that_cannot_be_written_is_a_stage_error(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, tiny_spec())
    with pytest.raises(StageError, match="cannot be made"):
        compile_checkpoint(tmp_path, tmp_path / "nowhere", ignore)


def test_compiling_reports_to_nobody_and_leaves_nothing_in_the_home_directory(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "checkpoint", tiny_spec())
    (tmp_path / "engine").mkdir()
    (tmp_path / "home").mkdir()
    program = (
        "import sys; from pathlib import Path; from scalellm_trt.backends.openvino_compile import compile_checkpoint; "
        "compile_checkpoint(Path('checkpoint'), Path('engine'), lambda *_: None); "
        "assert sys.modules['openvino_telemetry'] is None"
    )
    environment = {**os.environ, "HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment, check=True)
    assert not list((tmp_path / "home").iterdir())

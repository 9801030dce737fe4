"""A recipe of the maintained path, built as a whole: the checkpoint is real, only the card is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scalellm_trt import pipeline
from scalellm_trt.pipeline import Workspace
from scalellm_trt.triton import published_engines, repository_check
from tests.fakes import small_tokenizer, tiny_models
from tests.fakes.reporters import Recorder

if TYPE_CHECKING:
    from pathlib import Path

RECIPE = """
schema: 1
name: tiny-llmapi
model:
  source: ./model
hardware: rtx4090
backend: llmapi
services: 2
quantization:
  weights: full_prec
limits:
  max_batch_size: 4
  max_seq_len: 64
  max_num_tokens: 64
serving:
  kv_cache_tokens: 256
"""


def test_two_services_are_published_and_every_artefact_is_sound(tmp_path: Path) -> None:
    tiny_models.write_model(tmp_path / "model")
    small_tokenizer.write(tmp_path / "model")
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    workspace = Workspace(builds_dir=tmp_path / "builds", repository_dir=tmp_path / "triton_repo")
    assert pipeline.build(path, workspace=workspace, reporter=Recorder()).num_stages_run == 3
    assert pipeline.build(path, workspace=workspace, reporter=Recorder()).num_stages_run == 0
    engines = published_engines.find(workspace.repository_dir)
    assert [(engine.model, engine.hosted_by) for engine in engines] == [
        ("tiny-llmapi-1", "llmapi"),
        ("tiny-llmapi-2", "llmapi"),
    ]
    repository_check.check(workspace.repository_dir)
    assert set(map(tuple, pipeline.verify_cache(workspace.builds_dir).values())) == {()}


def test_a_damaged_unified_checkpoint_is_told(tmp_path: Path) -> None:
    tiny_models.write_model(tmp_path / "model")
    small_tokenizer.write(tmp_path / "model")
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    workspace = Workspace(builds_dir=tmp_path / "builds", repository_dir=tmp_path / "triton_repo")
    pipeline.build(path, workspace=workspace, reporter=Recorder(), until="quantize")
    weights = next((workspace.builds_dir / "tiny-llmapi" / "quantize").glob("*.safetensors"))
    weights.chmod(0o644)
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    [damage] = pipeline.verify_cache(workspace.builds_dir).values()
    assert damage == [f"{weights.name}: content differs from the manifest"]

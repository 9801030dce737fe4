"""Checkpoints beside those that ModelOpt's own exporter writes for the same random models; needs `[quantize]`."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from scalellm_trt import model_spec
from scalellm_trt.checkpoint import verify
from scalellm_trt.checkpoint.dtypes import CheckpointDtype, to_float32
from scalellm_trt.checkpoint.formats import config_for
from scalellm_trt.checkpoint.layerwise import calibration_batches
from scalellm_trt.checkpoint.layout import linears, source_tensors
from scalellm_trt.checkpoint.modelopt import quantize
from scalellm_trt.checkpoint.reader import CheckpointReader, Int4Linear
from scalellm_trt.checkpoint.streaming import convert_weights
from scalellm_trt.checkpoint.tensor_file import TensorFile
from scripts.benchmarks.sides.random_models import VOCAB_SIZE
from tests.fakes.torch_models import random_model, samples

if TYPE_CHECKING:
    from pathlib import Path

# The libraries warn about each other while they are imported.
pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore")]


def modelopt_export(model: Any, family: str, directory: Path, dtype: str = "float16") -> TensorFile:
    import torch
    from modelopt.torch.export import export_tensorrt_llm_checkpoint

    decoder_type = "qwen" if family.startswith("Qwen") else "llama"
    with torch.inference_mode():
        export_tensorrt_llm_checkpoint(
            model, decoder_type, getattr(torch, dtype), export_dir=directory, inference_tensor_parallel=1
        )
    return TensorFile(directory / "rank0.safetensors")


@pytest.mark.parametrize(
    ("family", "dtype", "tied"),
    [
        ("Llama", "float16", True),
        ("Llama", "bfloat16", False),
        ("Mistral", "bfloat16", False),
        ("Qwen2", "float16", True),
        ("Qwen3", "bfloat16", False),
    ],
)
def test_full_precision_equals_modelopts_export_bit_for_bit(
    tmp_path: Path, family: str, dtype: CheckpointDtype, tied: bool
) -> None:
    model = random_model(family, tmp_path / "model", tie_word_embeddings=tied)
    spec = model_spec.read(tmp_path / "model")
    (tmp_path / "ours").mkdir()
    convert_weights(tmp_path / "model", config_for(spec, "full_prec", dtype), tmp_path / "ours", lambda *_: None)
    ours = TensorFile(tmp_path / "ours" / "rank0.safetensors")
    theirs = modelopt_export(model.float(), family, tmp_path / "theirs", dtype)
    assert set(ours.entries) == set(theirs.entries)
    for name in ours.entries:
        assert ours.dtype(name) == theirs.dtype(name), name
        np.testing.assert_array_equal(ours.raw(name), theirs.raw(name), err_msg=name)


@pytest.mark.parametrize("family", ["Llama", "Qwen2", "Qwen3"])
def test_awq_takes_modelopts_quantized_tensors_and_the_models_own_others(tmp_path: Path, family: str) -> None:
    import copy

    model = random_model(family, tmp_path / "model")
    spec = model_spec.read(tmp_path / "model")
    (tmp_path / "ours").mkdir()
    shares: list[float] = []
    config = config_for(spec, "int4_awq", "float16", "fp8", group_size=32)
    quantize(tmp_path / "model", config, samples(), tmp_path / "ours", lambda _, share: shares.append(share))
    assert verify.verify(tmp_path / "ours", spec) == []
    record = json.loads((tmp_path / "ours" / "calibration.json").read_text())
    assert (record["digest"], record["num_samples"]) == (samples().digest, 3)
    assert "nvidia-modelopt" in record
    assert shares == sorted(shares)
    assert any(0 < share < 0.9 for share in shares)
    assert not (tmp_path / "ours" / "modelopt").exists()

    import modelopt.torch.quantization as mtq
    import torch

    rules = copy.deepcopy(mtq.INT4_AWQ_CFG)
    for rule in rules["quant_cfg"]:
        if rule["quantizer_name"] == "*weight_quantizer":
            rule["cfg"]["block_sizes"] = {-1: 32, "type": "static"}
    (batch,) = calibration_batches(samples())
    # Loaded anew: half() has rounded the rotary frequencies of the model in memory.
    model = type(model).from_pretrained(tmp_path / "model", dtype=torch.float32)
    mtq.quantize(model, rules, lambda module: module(torch.from_numpy(batch)))
    theirs = modelopt_export(model, family, tmp_path / "theirs")
    ours = TensorFile(tmp_path / "ours" / "rank0.safetensors")
    for name in theirs.entries:
        raw = theirs.raw(name)
        if name in ("lm_head.weight", "transformer.vocab_embedding.weight"):
            assert raw.shape[0] == 128  # padded to a multiple of 64
            raw = raw[:VOCAB_SIZE]
        np.testing.assert_array_equal(ours.raw(name), raw, err_msg=name)
    assert set(ours.entries) - set(theirs.entries) == {
        f"transformer.layers.{layer}.attention.kv_cache_scaling_factor" for layer in range(2)
    }


def test_modelopts_own_awq_directory_is_read_verified_and_dequantized(tmp_path: Path) -> None:
    import copy

    model = random_model("Llama", tmp_path / "model", vocab_size=128)
    spec = model_spec.read(tmp_path / "model")
    import modelopt.torch.quantization as mtq
    import torch

    batches = [torch.randint(0, 128, (1, 32)) for _ in range(3)]
    mtq.quantize(model.float(), copy.deepcopy(mtq.INT4_AWQ_CFG), lambda module: [module(batch) for batch in batches])
    modelopt_export(model, "Llama", tmp_path / "theirs")
    assert verify.verify(tmp_path / "theirs") == []
    reader = CheckpointReader(tmp_path / "theirs")
    their_spec = dataclasses.replace(
        reader.config.spec, bos_token_id=spec.bos_token_id, eos_token_ids=spec.eos_token_ids
    )
    assert their_spec == spec
    for name in linears(spec):
        linear = reader.linear(f"transformer.layers.0.{name}")
        assert isinstance(linear, Int4Linear)
        parts = source_tensors(spec)[f"transformer.layers.0.{name}.weight"].parts
        original = np.concatenate([weights_of(tmp_path / "model", part) for part, _ in parts])
        error = np.linalg.norm(linear.dequantize() - original) / np.linalg.norm(original)
        assert 0.05 < error < 0.2  # int4 with 128 normally distributed weights per scale


def weights_of(model_dir: Path, name: str) -> Any:
    index = json.loads((model_dir / "model.safetensors.index.json").read_text())["weight_map"]
    file = TensorFile(model_dir / index[name])
    return to_float32(file.raw(name), file.dtype(name))

"""Checkpoints beside those that ModelOpt's own exporter writes for the same random models; needs `[quantize]`."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from scalellm_trt import model_spec
from scalellm_trt.checkpoint import verify
from scalellm_trt.checkpoint.calibration import CalibrationSamples
from scalellm_trt.checkpoint.dtypes import CheckpointDtype, to_float32
from scalellm_trt.checkpoint.layout import linear_shapes, source_tensors
from scalellm_trt.checkpoint.modelopt import awq_config, calibration_batches, quantize_awq
from scalellm_trt.checkpoint.reader import CheckpointReader, Int4Linear
from scalellm_trt.checkpoint.streaming import convert_weights, streamed_config
from scalellm_trt.checkpoint.tensor_file import TensorFile

if TYPE_CHECKING:
    from pathlib import Path

# The libraries warn about each other while they are imported.
pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore")]

# A vocabulary that 64 does not divide: ModelOpt pads it when it exports AWQ.
VOCAB_SIZE = 100
SIZES = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 64,
    "rope_theta": 50000.0,
}


def random_model(family: str, directory: Path, **changes: object) -> Any:
    """Save a random float16 model of transformers and return it."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("modelopt")
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**{**SIZES, "sliding_window": None, **changes})
    model = getattr(transformers, f"{family}ForCausalLM")(config).half().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or "bias" in name:  # freshly made they are all ones and zeros
                parameter.copy_(torch.rand_like(parameter) + 0.5)
    model.save_pretrained(directory, max_shard_size="100KB")
    return model


def modelopt_export(model: Any, family: str, directory: Path, dtype: str = "float16") -> TensorFile:
    import torch
    from modelopt.torch.export import export_tensorrt_llm_checkpoint

    decoder_type = "qwen" if family.startswith("Qwen") else "llama"
    with torch.inference_mode():
        export_tensorrt_llm_checkpoint(
            model, decoder_type, getattr(torch, dtype), export_dir=directory, inference_tensor_parallel=1
        )
    return TensorFile(directory / "rank0.safetensors")


def samples() -> CalibrationSamples:
    rng = np.random.default_rng(0)
    ids = tuple(rng.integers(0, VOCAB_SIZE, 32).astype(np.int32) for _ in range(3))
    return CalibrationSamples(source="random", token_ids=ids, max_seq_len=32, seed=0)


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
    convert_weights(tmp_path / "model", streamed_config(spec, "full_prec", dtype), tmp_path / "ours", lambda *_: None)
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
    config = awq_config(spec, "float16", 32, "fp8")
    quantize_awq(tmp_path / "model", config, samples(), tmp_path / "ours", lambda _, share: shares.append(share))
    assert verify.verify(tmp_path / "ours", spec) == []
    record = json.loads((tmp_path / "ours" / "calibration.json").read_text())
    assert (record["digest"], record["num_samples"]) == (samples().digest, 3)
    assert "nvidia-modelopt" in record
    assert shares == sorted(shares)
    assert any(0 < share < 0.9 for share in shares)
    assert not (tmp_path / "ours" / "modelopt-export").exists()

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
    for name in linear_shapes(spec):
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

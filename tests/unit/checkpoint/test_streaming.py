"""`streaming`: what arrives in the checkpoint, and what is refused on the way."""

from __future__ import annotations

import errno
import json
import os
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
from safetensors import safe_open

from scalellm_trt.checkpoint import verify
from scalellm_trt.checkpoint.dtypes import CheckpointDtype, from_float32, to_float32
from scalellm_trt.checkpoint.formats import config_for
from scalellm_trt.checkpoint.reader import CheckpointReader
from scalellm_trt.checkpoint.streaming import convert_weights
from scalellm_trt.errors import ArtefactError, StageError, UnsupportedError
from tests.fakes.tiny_models import tiny_spec, tiny_weights, write_model, write_tensors

if TYPE_CHECKING:
    from pathlib import Path

    from scalellm_trt.model_spec import ModelSpec


def convert(
    model_dir: Path,
    out_dir: Path,
    spec: ModelSpec,
    weights: str = "full_prec",
    dtype: CheckpointDtype = "float16",
    shares: list[float] | None = None,
) -> CheckpointReader:
    out_dir.mkdir(exist_ok=True)
    shares = [] if shares is None else shares
    convert_weights(model_dir, config_for(spec, weights, dtype), out_dir, lambda _, share: shares.append(share))
    return CheckpointReader(out_dir)


@pytest.mark.parametrize("num_shards", [1, 3])
@pytest.mark.parametrize("weights", ["full_prec", "int8_wo", "int4_wo"])
def test_weights_arrive_bit_for_bit(tmp_path: Path, num_shards: int, weights: str) -> None:
    spec = write_model(tmp_path / "model", num_shards=num_shards)
    reader = convert(tmp_path / "model", tmp_path / "out", spec, weights)
    source = {name: values.astype(np.float16) for name, values in tiny_weights(spec).items()}
    attention = "model.layers.1.self_attn"
    qkv = np.concatenate([source[f"{attention}.{name}_proj.weight"] for name in "qkv"])
    expected = {
        "transformer.layers.1.attention.qkv.weight": qkv,
        "transformer.layers.1.attention.dense.weight": source[f"{attention}.o_proj.weight"],
        "transformer.layers.1.mlp.fc.weight": source["model.layers.1.mlp.gate_proj.weight"],
        "transformer.layers.1.mlp.gate.weight": source["model.layers.1.mlp.up_proj.weight"],
        "transformer.layers.1.mlp.proj.weight": source["model.layers.1.mlp.down_proj.weight"],
        "transformer.layers.1.input_layernorm.weight": source["model.layers.1.input_layernorm.weight"],
        "transformer.layers.1.post_layernorm.weight": source["model.layers.1.post_attention_layernorm.weight"],
        "transformer.vocab_embedding.weight": source["model.embed_tokens.weight"],
        "transformer.ln_f.weight": source["model.norm.weight"],
        "lm_head.weight": source["lm_head.weight"],
    }
    for name, values in expected.items():
        np.testing.assert_array_equal(reader.tensor(name), values, err_msg=name)
    assert len(reader.names()) == 2 * 7 + 3
    assert verify.verify(tmp_path / "out", spec) == []


def test_the_file_is_one_that_the_safetensors_library_reads(tmp_path: Path) -> None:
    spec = write_model(tmp_path / "model")
    reader = convert(tmp_path / "model", tmp_path / "out", spec)
    with safe_open(tmp_path / "out" / "rank0.safetensors", framework="numpy") as file:
        names = list(file.keys())
        assert set(names) == set(reader.names())
        for name in names:
            np.testing.assert_array_equal(file.get_tensor(name), reader.tensor(name))


def test_tied_embeddings_are_written_as_the_head_too(tmp_path: Path) -> None:
    spec = write_model(tmp_path / "model", tie_word_embeddings=True)
    reader = convert(tmp_path / "model", tmp_path / "out", spec)
    np.testing.assert_array_equal(reader.tensor("lm_head.weight"), reader.tensor("transformer.vocab_embedding.weight"))


def test_qwen2_brings_its_bias_and_qwen3_its_norms(tmp_path: Path) -> None:
    qwen2 = write_model(tmp_path / "qwen2", architectures=["Qwen2ForCausalLM"])
    bias = convert(tmp_path / "qwen2", tmp_path / "out2", qwen2).linear("transformer.layers.0.attention.qkv").bias
    source = tiny_weights(qwen2)
    expected = np.concatenate([source[f"model.layers.0.self_attn.{name}_proj.bias"] for name in "qkv"])
    assert bias is not None
    np.testing.assert_array_equal(bias, expected.astype(np.float16))
    qwen3 = write_model(tmp_path / "qwen3", architectures=["Qwen3ForCausalLM"])
    reader = convert(tmp_path / "qwen3", tmp_path / "out3", qwen3)
    norm = tiny_weights(qwen3)["model.layers.0.self_attn.k_norm.weight"].astype(np.float16)
    np.testing.assert_array_equal(reader.tensor("transformer.layers.0.attention.k_layernorm.weight"), norm)


@pytest.mark.parametrize("source", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("target", ["float16", "bfloat16", "float32"])
def test_every_pair_of_dtypes_rounds_once(tmp_path: Path, source: CheckpointDtype, target: CheckpointDtype) -> None:
    stored = {"float16": "F16", "bfloat16": "BF16", "float32": "F32"}
    spec = write_model(tmp_path / "model", dtype=source)
    reader = convert(tmp_path / "model", tmp_path / "out", spec, dtype=target)
    values = tiny_weights(spec)["model.layers.0.mlp.up_proj.weight"]
    for dtype in (stored[source], stored[target]):
        values = to_float32(from_float32(values, dtype), dtype)  # type: ignore[arg-type]
    np.testing.assert_array_equal(reader.tensor("transformer.layers.0.mlp.gate.weight").astype(np.float32), values)


def test_fp8_kv_cache_gets_scale_one_in_every_layer(tmp_path: Path) -> None:
    spec = write_model(tmp_path / "model")
    (tmp_path / "out").mkdir()
    config = config_for(spec, "int8_wo", "float16", "fp8")
    convert_weights(tmp_path / "model", config, tmp_path / "out", lambda *_: None)
    reader = CheckpointReader(tmp_path / "out")
    assert reader.config.kv_cache_quant_algo == "FP8"
    for layer in range(2):
        scale = reader.tensor(f"transformer.layers.{layer}.attention.kv_cache_scaling_factor")
        assert scale.dtype == np.float32
        assert scale.tolist() == [1.0]
    assert verify.verify(tmp_path / "out", spec) == []


def test_tokenizer_files_come_along_and_weights_do_not(tmp_path: Path) -> None:
    spec = write_model(tmp_path / "model")
    (tmp_path / "model" / "chat_template.jinja").write_text("{{ messages }}")
    convert(tmp_path / "model", tmp_path / "out", spec)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"config.json", "rank0.safetensors", "tokenizer.json", "chat_template.jinja"}


def test_progress_rises_to_one(tmp_path: Path) -> None:
    shares: list[float] = []
    spec = write_model(tmp_path / "model")
    convert(tmp_path / "model", tmp_path / "out", spec, shares=shares)
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0.0, 1.0)


def rewrite(model_dir: Path, name: str, dtype: str, values: np.ndarray) -> None:  # type: ignore[type-arg]
    """Replace, or add, one tensor of a single-shard model."""
    weights = tiny_weights(tiny_spec())
    tensors = {key: ("F16", from_float32(value, "F16")) for key, value in weights.items()}
    write_tensors(model_dir / "model.safetensors", {**tensors, name: (dtype, values)})


NAN = np.full((64,), np.nan, np.float16)


@pytest.mark.parametrize(
    ("name", "dtype", "values", "error", "message"),
    [
        ("model.norm.weight", "F16", NAN, ArtefactError, "model.norm.weight holds NaN or infinite"),
        ("model.norm.weight", "F32", np.full((64,), 1e9, np.float32), UnsupportedError, "beyond the range of float16"),
        ("model.norm.weight", "I8", np.ones(64, np.int8), UnsupportedError, "has element type I8"),
        ("model.norm.weight", "F16", np.ones(63, np.float16), ArtefactError, r"model.norm.weight is \[63\]"),
        (
            "model.layers.0.self_attn.o_proj.bias",
            "F16",
            np.ones(64, np.float16),
            UnsupportedError,
            "1 tensors are unkn",
        ),
    ],
)
def test_a_tensor_that_cannot_be_is_refused(
    tmp_path: Path,
    name: str,
    dtype: str,
    values: np.ndarray,  # type: ignore[type-arg]
    error: type[Exception],
    message: str,
) -> None:
    spec = write_model(tmp_path)
    rewrite(tmp_path, name, dtype, values)
    with pytest.raises(error, match=message):
        convert(tmp_path, tmp_path / "out", spec)


def test_a_redundant_head_and_old_rotary_buffers_are_ignored(tmp_path: Path) -> None:
    spec = write_model(tmp_path, tie_word_embeddings=True)
    tensors = {key: ("F16", from_float32(value, "F16")) for key, value in tiny_weights(spec).items()}
    tensors["lm_head.weight"] = ("F16", np.zeros((80, 64), np.float16))
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = ("F32", np.zeros(8, np.float32))
    write_tensors(tmp_path / "model.safetensors", tensors)
    assert convert(tmp_path, tmp_path / "out", spec).tensor("lm_head.weight").any()


def test_missing_tensors_and_shards_are_named(tmp_path: Path) -> None:
    spec = write_model(tmp_path / "model", num_shards=2)
    shard = "model-00002-of-00002.safetensors"
    (tmp_path / "model" / shard).unlink()
    with pytest.raises(ArtefactError, match=rf"lists files that are not there: {shard}"):
        convert(tmp_path / "model", tmp_path / "out", spec)
    (tmp_path / "model" / "model.safetensors.index.json").unlink()
    with pytest.raises(ArtefactError, match="tensors are missing: model"):
        convert(tmp_path / "model", tmp_path / "out", spec)
    shutil.rmtree(tmp_path / "model")
    (tmp_path / "model").mkdir()
    with pytest.raises(ArtefactError, match=r"holds no \.safetensors file"):
        convert(tmp_path / "model", tmp_path / "out", spec)


def test_the_same_tensor_in_two_shards_is_refused(tmp_path: Path) -> None:
    spec = write_model(tmp_path)
    shutil.copy(tmp_path / "model.safetensors", tmp_path / "consolidated.safetensors")
    with pytest.raises(ArtefactError, match=r"is in consolidated\.safetensors too"):
        convert(tmp_path, tmp_path / "out", spec)


@pytest.mark.parametrize("content", ["[]", "{", json.dumps({"weight_map": []})])
def test_a_broken_index_is_named(tmp_path: Path, content: str) -> None:
    spec = write_model(tmp_path, num_shards=2)
    (tmp_path / "model.safetensors.index.json").write_text(content)
    with pytest.raises(ArtefactError, match="is not an index of shards"):
        convert(tmp_path, tmp_path / "out", spec)


@pytest.mark.parametrize("keep", [0, 4, 40, -10])
def test_a_truncated_shard_is_named(tmp_path: Path, keep: int) -> None:
    spec = write_model(tmp_path)
    content = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(content[:keep])
    with pytest.raises(ArtefactError, match="is not a complete safetensors file"):
        convert(tmp_path, tmp_path / "out", spec)


def test_a_disk_that_is_too_small_is_refused_before_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = write_model(tmp_path / "model")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**6, 10**6, 1000))
    with pytest.raises(StageError, match=r"needs \d+ bytes, 1000 are free"):
        convert(tmp_path / "model", tmp_path / "out", spec)


def test_a_disk_that_fills_up_is_said_with_the_bytes_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = write_model(tmp_path / "model")
    real_write = os.write

    def write(descriptor: int, data: bytes) -> int:
        if len(data) == 80 * 64 * 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real_write(descriptor, data)

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(StageError, match=r"the disk is full: the file needs \d+ bytes, \d+ fit"):
        convert(tmp_path / "model", tmp_path / "out", spec)

"""Random models of a few kilobytes in Hugging Face layout, made with numpy alone, shard by shard."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from scalellm_trt import model_spec
from scalellm_trt.checkpoint.dtypes import STORED_DTYPES, CheckpointDtype, RawArray, from_float32
from scalellm_trt.checkpoint.layout import source_tensors
from scalellm_trt.checkpoint.tensor_file import TensorFileWriter, TensorLayout

if TYPE_CHECKING:
    from pathlib import Path

    from scalellm_trt.model_spec import ModelSpec

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 80,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": [2, 3],
}


def tiny_spec(**changes: object) -> ModelSpec:
    """Return the spec of `CONFIG` with `changes`."""
    return model_spec.from_hf_config({**CONFIG, **changes})


def tiny_weights(spec: ModelSpec, seed: int = 0) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
    """Return random weights under Hugging Face names, float32."""
    rng = np.random.default_rng(seed)
    return {
        part: (rng.standard_normal((rows, *source.shape[1:][-1:])) * 0.1).astype(np.float32)
        for source in source_tensors(spec).values()
        for part, rows in source.parts
    }


def write_tensors(path: Path, tensors: dict[str, tuple[str, RawArray]]) -> None:
    """Write raw arrays under their names, each with the element type that safetensors calls it."""
    layouts = {
        name: TensorLayout(dtype=dtype, shape=raw.shape)  # type: ignore[arg-type]
        for name, (dtype, raw) in tensors.items()
    }
    with TensorFileWriter(path, layouts) as writer:
        for name in writer.names():
            writer.write(name, [tensors[name][1]])


def write_model(
    directory: Path, *, dtype: CheckpointDtype = "float16", num_shards: int = 1, seed: int = 0, **changes: object
) -> ModelSpec:
    """Write config.json, shards, their index and a stand-in for the tokenizer; return the spec."""
    directory.mkdir(parents=True, exist_ok=True)
    spec = tiny_spec(**changes)
    (directory / "config.json").write_text(json.dumps({**CONFIG, **changes}))
    (directory / "tokenizer.json").write_text("{}")
    stored = STORED_DTYPES[dtype]
    raw = {name: (stored, from_float32(values, stored)) for name, values in tiny_weights(spec, seed).items()}
    names, weight_map = list(raw), {}
    for shard in range(num_shards):
        part = names[shard::num_shards]
        file_name = f"model-{shard + 1:05}-of-{num_shards:05}.safetensors" if num_shards > 1 else "model.safetensors"
        write_tensors(directory / file_name, {name: raw[name] for name in part})
        weight_map.update(dict.fromkeys(part, file_name))
    if num_shards > 1:
        (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return spec

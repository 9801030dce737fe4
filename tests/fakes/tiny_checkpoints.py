"""Random checkpoints of a few kilobytes in every weight format, made with numpy alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scalellm_trt.checkpoint import config as checkpoint_config
from scalellm_trt.checkpoint.config import CheckpointConfig
from scalellm_trt.checkpoint.dtypes import from_float32
from scalellm_trt.checkpoint.layout import tensor_layouts
from tests.fakes.tiny_models import write_tensors

if TYPE_CHECKING:
    from pathlib import Path

    from scalellm_trt.checkpoint.config import QuantAlgo
    from scalellm_trt.checkpoint.dtypes import CheckpointDtype, RawArray
    from scalellm_trt.checkpoint.tensor_file import TensorLayout
    from scalellm_trt.model_spec import ModelSpec

GROUP_SIZE = 32


def write_checkpoint(
    directory: Path,
    spec: ModelSpec,
    *,
    quant_algo: QuantAlgo | None = None,
    dtype: CheckpointDtype = "float16",
    seed: int = 0,
) -> CheckpointConfig:
    """Write config.json, rank0.safetensors and a stand-in for the tokenizer; return the config."""
    directory.mkdir(parents=True, exist_ok=True)
    group_size = GROUP_SIZE if quant_algo == "W4A16_AWQ" else None
    config = CheckpointConfig(spec=spec, dtype=dtype, quant_algo=quant_algo, group_size=group_size)
    rng = np.random.default_rng(seed)
    tensors = {name: (layout.dtype, _values(name, layout, rng)) for name, layout in tensor_layouts(config).items()}
    if spec.tie_word_embeddings:
        tensors["lm_head.weight"] = tensors["transformer.vocab_embedding.weight"]
    write_tensors(directory / "rank0.safetensors", dict(tensors))
    checkpoint_config.write(config, directory)
    (directory / "tokenizer.json").write_text("{}")
    return config


def _values(name: str, layout: TensorLayout, rng: np.random.Generator) -> RawArray:
    if layout.dtype == "I8":
        return rng.integers(-128, 128, layout.shape, np.int8)
    if name.endswith("weights_scaling_factor"):
        values = rng.uniform(0.01, 0.05, layout.shape)
    elif name.endswith(("norm.weight", "ln_f.weight", "prequant_scaling_factor")):
        values = rng.uniform(0.5, 1.5, layout.shape)
    else:
        values = rng.standard_normal(layout.shape) * 0.2
    return from_float32(values.astype(np.float32), layout.dtype)

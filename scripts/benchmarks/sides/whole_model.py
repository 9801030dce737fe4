"""The original model in transformers and ModelOpt's own export of it: what checkpoints are compared with."""

from __future__ import annotations

import contextlib
import io
import warnings
from typing import TYPE_CHECKING

import numpy as np

from scalellm_trt.checkpoint.layerwise import calibration_batches
from scalellm_trt.checkpoint.modelopt_rules import rules_for
from scalellm_trt.checkpoint.tensor_file import TensorFile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from scalellm_trt.checkpoint.calibration import CalibrationSamples
    from scalellm_trt.checkpoint.config import CheckpointConfig


def largest_keys_and_values(model_dir: Path, samples: CalibrationSamples) -> list[float]:
    """Return the largest magnitude among each layer's keys (after rotary embedding) and values, over the samples.

    Read from the KV cache of the original model, which knows nothing of quantizers.
    """
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32, local_files_only=True).eval()
    largest = [0.0] * model.config.num_hidden_layers
    with torch.inference_mode():
        for ids in calibration_batches(samples):
            cache = model.model(torch.from_numpy(ids), use_cache=True).past_key_values
            for layer, value in enumerate(largest):
                both = (cache.layers[layer].keys, cache.layers[layer].values)
                largest[layer] = max(value, *(tensor.abs().max().item() for tensor in both))
    return largest


def modelopt_export(
    model_dir: Path, config: CheckpointConfig, samples: CalibrationSamples, out_dir: Path
) -> TensorFile:
    """Quantize and export the whole model by ModelOpt alone."""
    import modelopt.torch.quantization as mtq
    import torch
    from modelopt.torch.export import export_tensorrt_llm_checkpoint
    from transformers import AutoModelForCausalLM

    decoder_type = "qwen" if config.spec.architecture.startswith("Qwen") else "llama"
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32, local_files_only=True).eval()
        batches = [torch.from_numpy(ids) for ids in calibration_batches(samples)]
        rules = rules_for(config.quant_algo, config.kv_cache_quant_algo, config.group_size)
        with torch.no_grad():
            mtq.quantize(model, rules, lambda module: [module.model(ids, use_cache=False) for ids in batches])
        with torch.inference_mode():
            export_tensorrt_llm_checkpoint(
                model, decoder_type, torch.float16, export_dir=out_dir, inference_tensor_parallel=1
            )
    return TensorFile(out_dir / "rank0.safetensors")


def different_tensors(ours: TensorFile, theirs: TensorFile) -> Iterator[str]:
    """Yield the names of tensors that one lacks or that differ; the vocabulary that ModelOpt pads is cut."""
    per_tensor = (".k_cache_scaling_factor", ".v_cache_scaling_factor")
    names = {name for name in theirs.entries if not name.endswith(per_tensor)}
    yield from names ^ ours.entries.keys()
    for name in names & ours.entries.keys():
        one, other = ours.raw(name), theirs.raw(name)
        if ours.dtype(name) != theirs.dtype(name) or not np.array_equal(one, other[: len(one)]):
            yield name

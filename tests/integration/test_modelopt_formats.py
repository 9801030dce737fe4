"""Every calibrated format beside ModelOpt's own export of the whole model, tensor by tensor; needs `[quantize]`.

Ours calibrates layer by layer and cuts the finished tensors for ranks; ModelOpt calibrates the whole model at once and
cuts before it packs. So neither can hide an error of the other.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from scalellm_trt import model_spec
from scalellm_trt.checkpoint import verify
from scalellm_trt.checkpoint.formats import config_for, needs_calibration
from scalellm_trt.checkpoint.layerwise import calibration_batches
from scalellm_trt.checkpoint.layout import kv_scale_name, layer_prefix
from scalellm_trt.checkpoint.modelopt import quantize
from scalellm_trt.checkpoint.modelopt_rules import rules_for
from scalellm_trt.checkpoint.streaming import convert_weights
from scalellm_trt.checkpoint.tensor_file import TensorFile
from scripts.benchmarks.sides.random_models import VOCAB_SIZE
from tests.fakes.torch_models import random_model, samples

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from scalellm_trt.checkpoint.config import CheckpointConfig
    from scalellm_trt.checkpoint.formats import KvCacheDtype

# The libraries warn about each other while they are imported.
pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore")]

PER_TENSOR = (".k_cache_scaling_factor", ".v_cache_scaling_factor")


def ours(model_dir: Path, config: CheckpointConfig, out_dir: Path) -> None:
    out_dir.mkdir()
    if needs_calibration(config):
        quantize(model_dir, config, samples(), out_dir, lambda *_: None)
    else:
        convert_weights(model_dir, config, out_dir, lambda *_: None)
    assert verify.verify(out_dir, config.spec) == []


def theirs(model_dir: Path, family: str, config: CheckpointConfig, out_dir: Path) -> None:
    """Quantize the whole model with ModelOpt and let it export, split and all."""
    import modelopt.torch.quantization as mtq
    import torch
    import transformers
    from modelopt.torch.export import export_tensorrt_llm_checkpoint

    model = getattr(transformers, f"{family}ForCausalLM").from_pretrained(model_dir, dtype=torch.float32).eval()
    batches = [torch.from_numpy(batch) for batch in calibration_batches(samples())]
    rules = rules_for(config.quant_algo, config.kv_cache_quant_algo, config.group_size)
    mtq.quantize(model, rules, lambda module: [module(batch) for batch in batches])
    with torch.inference_mode():
        export_tensorrt_llm_checkpoint(
            model,
            "qwen" if family.startswith("Qwen") else "llama",
            getattr(torch, config.dtype),
            export_dir=out_dir,
            inference_tensor_parallel=config.tp_size,
            inference_pipeline_parallel=config.pp_size,
        )


def different_tensors(our_dir: Path, their_dir: Path, num_ranks: int) -> Iterator[str]:
    for rank in range(num_ranks):
        our, their = (TensorFile(directory / f"rank{rank}.safetensors") for directory in (our_dir, their_dir))
        names = {name for name in their.entries if not name.endswith(PER_TENSOR)}
        yield from (f"rank {rank}: only one has {name}" for name in names ^ set(our.entries))
        for name in names & set(our.entries):
            one, other = our.raw(name), their.raw(name)
            is_vocabulary = name in ("lm_head.weight", "transformer.vocab_embedding.weight")
            if is_vocabulary and other.shape != one.shape:  # AWQ pads to a multiple of 64
                assert not other[len(one) :].any()
                other = other[: len(one)]
            if our.dtype(name) != their.dtype(name) or not np.array_equal(one, other):
                yield f"rank {rank}: {name}"


FORMATS = [
    ("Llama", "fp8", "float16", {}),
    ("Llama", "fp8", "int8", {"tp_size": 2, "pp_size": 2}),
    ("Llama", "int8_sq", "int8", {"tp_size": 2}),
    ("Llama", "int4_awq", "int8", {"tp_size": 2}),
    ("Llama", "w4a8_awq", "fp8", {"tp_size": 2}),
    ("Llama", "int4_awq", "float16", {"tp_size": 4}),  # two KV heads: each is on two ranks
    ("Llama", "fp8", "fp8", {"tp_size": 4}),
    ("Qwen2", "int8_sq", "float16", {"tp_size": 2}),  # with biases
    ("Qwen2", "fp8", "fp8", {"tp_size": 2}),
    ("Qwen3", "w4a8_awq", "int8", {}),
    ("Mixtral", "fp8", "fp8", {"tp_size": 2, "pp_size": 2}),
    ("Mixtral", "int4_awq", "int8", {"tp_size": 2}),
    ("Mixtral", "w4a8_awq", "float16", {"tp_size": 2}),
    ("Mixtral", "full_prec", "float16", {"tp_size": 2}),
    ("Llama", "full_prec", "float16", {"tp_size": 4, "pp_size": 2}),
]


@pytest.mark.parametrize(("family", "weights", "kv_cache_dtype", "ranks"), FORMATS)
def test_every_rank_equals_modelopts_own_export(
    tmp_path: Path, family: str, weights: str, kv_cache_dtype: KvCacheDtype, ranks: dict[str, int]
) -> None:
    random_model(family, tmp_path / "model", vocab_size=128)
    spec = model_spec.read(tmp_path / "model")
    config = config_for(spec, weights, "float16", kv_cache_dtype, group_size=32, **ranks)
    ours(tmp_path / "model", config, tmp_path / "ours")
    theirs(tmp_path / "model", family, config, tmp_path / "theirs")
    assert list(different_tensors(tmp_path / "ours", tmp_path / "theirs", config.tp_size * config.pp_size)) == []
    check_config(tmp_path, config)


def check_config(tmp_path: Path, config: CheckpointConfig) -> None:
    """What both configs say of quantization, mapping and experts must be the same."""
    our, their = (json.loads((tmp_path / name / "config.json").read_text()) for name in ("ours", "theirs"))
    if config.quant_algo is not None:
        quantization = our["quantization"]
        assert {key: quantization[key] for key in their["quantization"]} == {
            **their["quantization"],
            "exclude_modules": quantization["exclude_modules"],
        }
        # ModelOpt counts a pipeline rank's layers from 0 and so leaves out the later routers.
        assert set(quantization["exclude_modules"]) >= set(their["quantization"]["exclude_modules"])
        if config.spec.num_experts:
            routers = {f"transformer.layers.{layer}.mlp.router" for layer in range(config.spec.num_layers)}
            assert set(quantization["exclude_modules"]) == {*routers, "lm_head"}
    assert our["mapping"] == their["mapping"]
    assert our.get("moe") == their.get("moe")
    assert our["hidden_act"] == their["hidden_act"]


@pytest.mark.parametrize("family", ["Llama", "Qwen3", "Mixtral"])
@pytest.mark.parametrize("weights", ["int8_wo", "fp8"])
def test_int8_kv_scales_are_the_largest_key_or_value_over_127(tmp_path: Path, family: str, weights: str) -> None:
    random_model(family, tmp_path / "model", vocab_size=128)
    spec = model_spec.read(tmp_path / "model")
    ours(tmp_path / "model", config_for(spec, weights, "float16", "int8"), tmp_path / "ours")
    file = TensorFile(tmp_path / "ours" / "rank0.safetensors")
    config = json.loads((tmp_path / "ours" / "config.json").read_text())
    assert config["quantization"]["kv_cache_quant_algo"] == "INT8"
    for layer, largest in enumerate(largest_keys_and_values(tmp_path / "model", family)):
        scale = file.raw(kv_scale_name(layer))
        assert scale.shape == (1,)
        assert scale[0] == np.float32(largest / np.float32(127))
        assert not file.entries.keys() & {f"{layer_prefix(layer)}.attention.k_cache_scaling_factor"}


def largest_keys_and_values(model_dir: Path, family: str) -> list[np.float32]:
    """Run the original model and look at its KV cache: keys after rotary embedding and values, per layer."""
    import torch
    import transformers

    model = getattr(transformers, f"{family}ForCausalLM").from_pretrained(model_dir, dtype=torch.float32).eval()
    largest: list[Any] = [0.0] * model.config.num_hidden_layers
    with torch.inference_mode():
        for ids in calibration_batches(samples()):
            cache = model(torch.from_numpy(ids), use_cache=True).past_key_values
            for layer in range(len(largest)):
                both = (cache.layers[layer].keys, cache.layers[layer].values)
                largest[layer] = max(largest[layer], *(tensor.abs().max().item() for tensor in both))
    return [np.float32(value) for value in largest]


def test_the_vocabulary_is_padded_for_ranks_that_do_not_divide_it(tmp_path: Path) -> None:
    random_model("Llama", tmp_path / "model", vocab_size=VOCAB_SIZE + 1)
    spec = model_spec.read(tmp_path / "model")
    config = config_for(spec, "fp8", "float16", tp_size=4)
    ours(tmp_path / "model", config, tmp_path / "ours")
    theirs(tmp_path / "model", "Llama", config, tmp_path / "theirs")
    assert list(different_tensors(tmp_path / "ours", tmp_path / "theirs", 4)) == []

"""`shards` and the streaming writer: what each rank's file holds, against slices written out here."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from scalellm_trt.checkpoint.formats import config_for
from scalellm_trt.checkpoint.layout import tensor_layouts
from scalellm_trt.checkpoint.shards import num_ranks, rank_shards
from scalellm_trt.checkpoint.streaming import convert_weights
from scalellm_trt.checkpoint.tensor_file import TensorFile
from scalellm_trt.checkpoint.verify import verify
from scalellm_trt.errors import UnsupportedError
from tests.fakes.tiny_models import tiny_spec, tiny_weights, write_model

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from scalellm_trt.model_spec import ModelSpec

MIXTRAL: dict[str, Any] = {"architectures": ["MixtralForCausalLM"], "num_local_experts": 4, "num_experts_per_tok": 2}


def write_ranks(directory: Path, tp_size: int, pp_size: int = 1, **changes: Any) -> tuple[ModelSpec, Path]:
    spec = write_model(directory / "model", **changes)
    out_dir = directory / "out"
    out_dir.mkdir()
    config = config_for(spec, "int8_wo", "float16", "fp8", tp_size=tp_size, pp_size=pp_size)
    convert_weights(directory / "model", config, out_dir, lambda *_: None)
    assert verify(out_dir, spec) == []
    return spec, out_dir


def rank(directory: Path, number: int) -> dict[str, NDArray[np.float16]]:
    file = TensorFile(directory / f"rank{number}.safetensors")
    return {name: np.array(file.raw(name)) for name in file.entries}


def source(spec: ModelSpec) -> dict[str, NDArray[np.float16]]:
    return {name: values.astype(np.float16) for name, values in tiny_weights(spec).items()}


def test_two_ranks_share_heads_and_hidden_units(tmp_path: Path) -> None:
    spec, out_dir = write_ranks(tmp_path, 2)
    weights, second = source(spec), rank(out_dir, 1)
    attention, mlp = "model.layers.1.self_attn", "model.layers.1.mlp"
    # 4 query heads of 16 rows, 2 KV heads: the second rank has the last two and the last one
    qkv = [weights[f"{attention}.q_proj.weight"][32:], weights[f"{attention}.k_proj.weight"][16:]]
    qkv.append(weights[f"{attention}.v_proj.weight"][16:])
    expected = {
        "attention.qkv.weight": np.concatenate(qkv),
        "attention.dense.weight": weights[f"{attention}.o_proj.weight"][:, 32:],
        "mlp.fc.weight": weights[f"{mlp}.gate_proj.weight"][48:],
        "mlp.gate.weight": weights[f"{mlp}.up_proj.weight"][48:],
        "mlp.proj.weight": weights[f"{mlp}.down_proj.weight"][:, 48:],
        "input_layernorm.weight": weights["model.layers.1.input_layernorm.weight"],
    }
    for name, values in expected.items():
        np.testing.assert_array_equal(second[f"transformer.layers.1.{name}"], values, err_msg=name)
    np.testing.assert_array_equal(second["lm_head.weight"], weights["lm_head.weight"][40:])
    embedding = weights["model.embed_tokens.weight"]
    np.testing.assert_array_equal(second["transformer.vocab_embedding.weight"], embedding[40:])
    assert json.loads((out_dir / "config.json").read_text())["use_parallel_embedding"] is True


def test_biases_are_cut_like_the_rows_they_are_added_to(tmp_path: Path) -> None:
    spec, out_dir = write_ranks(tmp_path, 2, architectures=["Qwen2ForCausalLM"])
    weights = source(spec)
    parts = [weights[f"model.layers.0.self_attn.{name}_proj.bias"] for name in "qkv"]
    expected = np.concatenate([part[: len(part) // 2] for part in parts])
    np.testing.assert_array_equal(rank(out_dir, 0)["transformer.layers.0.attention.qkv.bias"], expected)


def test_a_kv_head_is_on_several_ranks_when_there_are_fewer_heads_than_ranks(tmp_path: Path) -> None:
    spec, out_dir = write_ranks(tmp_path, 4)
    keys = source(spec)["model.layers.0.self_attn.k_proj.weight"]
    for number, head in enumerate((0, 0, 1, 1)):
        qkv = rank(out_dir, number)["transformer.layers.0.attention.qkv.weight"]
        assert qkv.shape == (16 + 16 + 16, 64)
        np.testing.assert_array_equal(qkv[16:32], keys[16 * head : 16 * head + 16])


def test_a_vocabulary_that_does_not_divide_is_padded_with_zeros(tmp_path: Path) -> None:
    spec, out_dir = write_ranks(tmp_path, 2, vocab_size=81)
    head = source(spec)["lm_head.weight"]
    last = rank(out_dir, 1)["lm_head.weight"]
    assert last.shape == (41, 64)
    np.testing.assert_array_equal(last[:40], head[41:])
    assert not last[40:].any()


def test_pipeline_ranks_count_their_layers_from_zero(tmp_path: Path) -> None:
    spec, out_dir = write_ranks(tmp_path, 2, 2)
    first, last = rank(out_dir, 1), rank(out_dir, 3)
    norm = source(spec)["model.layers.1.input_layernorm.weight"]
    np.testing.assert_array_equal(last["transformer.layers.0.input_layernorm.weight"], norm)
    assert not any(name.startswith("transformer.layers.1.") for name in last)
    assert {name for name in first if "layers" not in name} == {"transformer.vocab_embedding.weight"}
    assert {name for name in last if "layers" not in name} == {"transformer.ln_f.weight", "lm_head.weight"}
    assert last["transformer.layers.0.attention.kv_cache_scaling_factor"].tolist() == [1.0]


def test_experts_are_stacked_with_the_branch_that_is_not_activated_first(tmp_path: Path) -> None:
    spec, out_dir = write_ranks(tmp_path, 2, **MIXTRAL)
    weights, second = source(spec), rank(out_dir, 1)
    block = "model.layers.1.block_sparse_moe"
    for expert in range(4):
        w1, w2, w3 = (weights[f"{block}.experts.{expert}.w{number}.weight"] for number in (1, 2, 3))
        stacked = second["transformer.layers.1.mlp.fc.weight"][expert]
        np.testing.assert_array_equal(stacked, np.concatenate([w3[48:], w1[48:]]))
        np.testing.assert_array_equal(second["transformer.layers.1.mlp.proj.weight"][expert], w2[:, 48:])
    router = second["transformer.layers.1.mlp.router.weight"]
    assert router.dtype == np.float32
    np.testing.assert_array_equal(router, weights[f"{block}.gate.weight"].astype(np.float32))
    config = json.loads((out_dir / "config.json").read_text())
    assert config["moe"] == {"num_experts": 4, "top_k": 2, "normalization_mode": 1}
    assert (config["hidden_act"], config["mapping"]["moe_tp_size"]) == ("swiglu", 2)


@pytest.mark.parametrize("weights", ["full_prec", "int8_wo", "int4_awq", "w4a8_awq", "int8_sq", "fp8"])
@pytest.mark.parametrize("experts", [{}, MIXTRAL])
def test_ranks_together_hold_each_element_of_a_cut_tensor_once(weights: str, experts: dict[str, Any]) -> None:
    spec = tiny_spec(**experts)
    if weights == "int8_sq" and experts:
        with pytest.raises(UnsupportedError, match="mixtures of experts"):
            config_for(spec, weights, "float16")
        return
    config = config_for(spec, weights, "float16", "int8", group_size=16, tp_size=2, pp_size=2)
    wholes = tensor_layouts(config)
    held: dict[str, list[int]] = {}
    for number in range(num_ranks(config)):
        for shard in rank_shards(config, number).values():
            held.setdefault(shard.source, []).append(int(np.prod(shard.layout.shape)))
    assert held.keys() == wholes.keys()
    for name, sizes in held.items():
        size = int(np.prod(wholes[name].shape))
        assert sizes in ([size // 2, size // 2], [size, size]), name
    assert all(len(set(sizes)) == 1 for sizes in held.values())


def test_every_reason_against_a_number_of_ranks_is_said() -> None:
    with pytest.raises(UnsupportedError) as caught:
        config_for(tiny_spec(), "full_prec", "float16", tp_size=3, pp_size=3)
    text = str(caught.value)
    assert "parallel.pp_size: 3 does not divide the model's 2 layers" in text
    assert "Allowed: 1, 2." in text
    assert "parallel.tp_size: 3 does not divide the model's 4 attention heads" in text
    with pytest.raises(UnsupportedError, match=r"32 does not divide the model's 16 inputs of attention\.dense"):
        config_for(tiny_spec(), "int4_awq", "float16", group_size=32, tp_size=4)


def test_a_tensor_that_ranks_share_must_be_the_same_everywhere(tmp_path: Path) -> None:
    _, out_dir = write_ranks(tmp_path, 2)
    path = out_dir / "rank1.safetensors"
    entry = TensorFile(path).entries["transformer.ln_f.weight"]
    with path.open("r+b") as file:
        file.seek(entry.offset_bytes)
        file.write(np.float16(3).tobytes())
    (problem,) = verify(out_dir)
    assert problem.key == "transformer.ln_f.weight"
    assert problem.message == "differs from the same tensor in rank0.safetensors"

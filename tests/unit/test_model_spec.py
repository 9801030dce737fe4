"""`model_spec`: what a Hugging Face config becomes, and what is refused by name."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from scalellm_trt import model_spec
from scalellm_trt.errors import UnsupportedError
from scalellm_trt.model_spec import RopeScaling

if TYPE_CHECKING:
    from pathlib import Path

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 256,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "hidden_act": "silu",
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 128,
}


def spec_of(**changes: object) -> model_spec.ModelSpec:
    return model_spec.from_hf_config({**LLAMA, **changes})


def problems_of(**changes: object) -> str:
    with pytest.raises(UnsupportedError) as caught:
        spec_of(**changes)
    return str(caught.value)


def test_a_llama_config_gives_its_shape() -> None:
    spec = spec_of()
    assert (spec.q_size, spec.kv_size, spec.head_dim, spec.num_layers) == (64, 32, 16, 2)
    assert (spec.rope_theta, spec.rms_norm_eps, spec.rope_scaling) == (500000.0, 1e-5, None)
    assert (spec.bos_token_id, spec.eos_token_ids, spec.tie_word_embeddings) == (1, (2,), False)
    assert spec.num_linear_parameters == 2 * (64 * (64 + 64) + 64 * 64 + 3 * 64 * 128)
    assert spec.num_embedding_parameters == 2 * 256 * 64


def test_defaults_are_those_of_transformers() -> None:
    config = {key: value for key, value in LLAMA.items() if key not in ("num_key_value_heads", "rope_theta")}
    spec = model_spec.from_hf_config({**config, "rms_norm_eps": None, "eos_token_id": [2, 3], "bos_token_id": None})
    assert (spec.num_kv_heads, spec.rope_theta, spec.rms_norm_eps) == (4, 10000.0, 1e-6)
    assert (spec.bos_token_id, spec.eos_token_ids) == (None, (2, 3))


def test_head_dim_may_differ_from_the_hidden_size() -> None:
    assert spec_of(head_dim=32).q_size == 128


def test_rope_scaling_is_read_in_both_generations_of_configs() -> None:
    expected = RopeScaling(
        kind="llama3",
        factor=8.0,
        low_freq_factor=1.0,
        high_freq_factor=4.0,
        original_max_position_embeddings=128,
    )
    assert spec_of(rope_scaling=LLAMA3_ROPE).rope_scaling == expected
    newer = spec_of(rope_theta=None, rope_parameters={**LLAMA3_ROPE, "rope_theta": 7.0})
    assert (newer.rope_scaling, newer.rope_theta) == (expected, 7.0)
    assert spec_of(rope_scaling={"type": "linear", "factor": 2}).rope_scaling == RopeScaling(kind="linear", factor=2.0)
    assert spec_of(rope_parameters={"rope_type": "default", "rope_theta": 1e4}).rope_scaling is None


@pytest.mark.parametrize("missing", sorted(set(LLAMA3_ROPE) - {"rope_type"}))
def test_an_incomplete_rope_scaling_names_the_missing_field(missing: str) -> None:
    scaling = {key: value for key, value in LLAMA3_ROPE.items() if key != missing}
    assert f"rope_scaling.{missing}: must be" in problems_of(rope_scaling=scaling)


@pytest.mark.parametrize("kind", ["yarn", "dynamic", "longrope", "mrope"])
def test_other_rope_types_are_refused_by_name(kind: str) -> None:
    text = problems_of(rope_scaling={"rope_type": kind, "factor": 4.0})
    assert f"rope_scaling.rope_type: '{kind}' is not supported" in text
    assert "Supported: default, linear, llama3." in text


def test_rope_scaling_must_be_an_object_with_sane_bounds() -> None:
    assert "rope_scaling: must be an object" in problems_of(rope_scaling="yarn")
    assert "must differ from low_freq_factor" in problems_of(rope_scaling={**LLAMA3_ROPE, "high_freq_factor": 1.0})


def test_mistrals_window_limits_the_length_to_where_full_attention_is_exact() -> None:
    assert spec_of(architectures=["MistralForCausalLM"], sliding_window=128).max_position_embeddings == 128
    assert spec_of(architectures=["MistralForCausalLM"], sliding_window=None).max_position_embeddings == 512
    assert spec_of(architectures=["MistralForCausalLM"], sliding_window=4096).max_position_embeddings == 512


def test_qwens_window_counts_only_where_it_is_used() -> None:
    qwen = {"architectures": ["Qwen2ForCausalLM"], "sliding_window": 64}
    assert spec_of(**qwen, use_sliding_window=False).max_position_embeddings == 512
    assert spec_of(**qwen, use_sliding_window=True).max_position_embeddings == 64


def test_qwen_generations_differ_in_bias_and_norm() -> None:
    qwen2, qwen3 = spec_of(architectures=["Qwen2ForCausalLM"]), spec_of(architectures=["Qwen3ForCausalLM"])
    assert (qwen2.attention_bias, qwen2.qk_norm) == (True, False)
    assert (qwen3.attention_bias, qwen3.qk_norm) == (False, True)


@pytest.mark.parametrize("architecture", ["LlamaForCausalLM", "MistralForCausalLM", "Qwen3ForCausalLM"])
def test_a_bias_on_the_output_projection_is_refused(architecture: str) -> None:
    assert "attention_bias" in problems_of(architectures=[architecture], attention_bias=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_act": "gelu"}, "hidden_act: must be silu, found 'gelu'"),
        ({"mlp_bias": True}, "mlp_bias: is not supported"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor: must be 1"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantized already"),
        ({"num_key_value_heads": 3}, "num_key_value_heads: 3 does not divide num_attention_heads (4)"),
        ({"hidden_size": 66, "num_attention_heads": 4}, "head_dim: is absent, and num_attention_heads (4)"),
        ({"head_dim": 15}, "head_dim: must be even"),
        ({"vocab_size": True}, "vocab_size: must be a positive integer, found True"),
        ({"intermediate_size": None}, "intermediate_size: must be a positive integer, found None"),
        ({"rope_theta": -1}, "rope_theta: must be a positive number, found -1"),
        ({"rms_norm_eps": "1e-5"}, "rms_norm_eps: must be a positive number"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings: must be true or false"),
        ({"eos_token_id": [1, "two"]}, "eos_token_id: must be a token id"),
        ({"architectures": ["DbrxForCausalLM"]}, "'DbrxForCausalLM' is not supported"),
        ({"architectures": None}, "architectures: None is not supported"),
        ({"architectures": "LlamaForCausalLM"}, "architectures: None is not supported"),
    ],
)
def test_what_cannot_be_is_refused_with_key_and_value(changes: dict[str, object], message: str) -> None:
    assert message in problems_of(**changes)


def test_all_problems_are_reported_at_once() -> None:
    text = problems_of(vocab_size=0, hidden_act="gelu", rope_scaling={"rope_type": "yarn"})
    assert [key in text for key in ("vocab_size", "hidden_act", "rope_type")] == [True, True, True]


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff\xfe{}", None])
def test_an_unreadable_file_is_named(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(UnsupportedError, match=r"config\.json: "):
        model_spec.read(tmp_path)


def test_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    assert model_spec.read(tmp_path) == spec_of()


def mixtral(**changes: object) -> dict[str, object]:
    return {
        "architectures": ["MixtralForCausalLM"], "vocab_size": 32, "hidden_size": 16, "intermediate_size": 24,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "num_local_experts": 4,
        "num_experts_per_tok": 2, **changes,
    }  # fmt: skip


def test_a_mixture_counts_every_expert_but_multiplies_with_the_chosen_ones() -> None:
    spec = model_spec.from_hf_config(mixtral())
    attention, expert = 16 * (16 + 2 * 8) + 16 * 16, 3 * 16 * 24
    assert spec.num_linear_parameters == 2 * (attention + 4 * expert)
    assert spec.num_active_linear_parameters == 2 * (attention + 2 * expert)
    assert spec.num_router_parameters == 2 * 16 * 4
    assert spec.num_mlps == 4


def test_a_dense_model_has_one_network_and_no_router() -> None:
    spec = model_spec.from_hf_config(mixtral(architectures=["LlamaForCausalLM"]))
    assert (spec.num_experts, spec.num_mlps, spec.num_router_parameters) == (0, 1, 0)
    assert spec.num_active_linear_parameters == spec.num_linear_parameters


def test_more_experts_per_token_than_there_are_is_refused() -> None:
    with pytest.raises(UnsupportedError, match=r"num_experts_per_tok: 5 is more than num_local_experts \(4\)"):
        model_spec.from_hf_config(mixtral(num_experts_per_tok=5))

"""`config`: config.json is complete, comes back as it went out, and is compared with the model."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from scalellm_trt.checkpoint import config as checkpoint_config
from scalellm_trt.checkpoint.config import CheckpointConfig, changed_fields, differences, parse, render
from scalellm_trt.errors import ArtefactError, UnsupportedError
from tests.fakes.tiny_models import tiny_spec

PATH = Path("config.json")
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
CONFIGS = {
    "llama": CheckpointConfig(spec=tiny_spec(), dtype="float16"),
    "llama 3": CheckpointConfig(spec=tiny_spec(rope_scaling=LLAMA3_ROPE), dtype="bfloat16", quant_algo="W8A16"),
    "linear": CheckpointConfig(spec=tiny_spec(rope_scaling={"type": "linear", "factor": 2.0}), dtype="float32"),
    "mistral": CheckpointConfig(
        spec=tiny_spec(architectures=["MistralForCausalLM"]), dtype="float16", kv_cache_quant_algo="FP8"
    ),
    "qwen2": CheckpointConfig(
        spec=tiny_spec(architectures=["Qwen2ForCausalLM"], bos_token_id=None), dtype="float16", quant_algo="W4A16"
    ),
    "qwen3": CheckpointConfig(
        spec=tiny_spec(architectures=["Qwen3ForCausalLM"], tie_word_embeddings=True),
        dtype="float16",
        quant_algo="W4A16_AWQ",
        group_size=16,
        logits_dtype="float16",
    ),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_survives_json(name: str) -> None:
    assert parse(json.loads(json.dumps(render(CONFIGS[name]))), PATH) == CONFIGS[name]


def test_it_says_what_trtllm_build_needs() -> None:
    rendered = render(CONFIGS["llama 3"])
    assert rendered["rotary_base"] == 500000.0
    assert rendered["rotary_scaling"] == {**LLAMA3_ROPE, "type": "llama3"}
    assert rendered["mapping"] == {"world_size": 1, "tp_size": 1, "pp_size": 1}
    assert rendered["quantization"] == {"quant_algo": "W8A16", "kv_cache_quant_algo": None, "exclude_modules": None}
    assert (rendered["architecture"], rendered["position_embedding_type"]) == ("LlamaForCausalLM", "rope_gpt_neox")
    assert "qwen_type" not in rendered


def test_qwen_says_its_generation_and_awq_its_groups() -> None:
    assert (render(CONFIGS["qwen2"])["qwen_type"], render(CONFIGS["qwen2"])["attn_bias"]) == ("qwen2", True)
    rendered: dict[str, Any] = render(CONFIGS["qwen3"])
    assert (rendered["qwen_type"], rendered["attn_bias"], rendered["qk_layernorm"]) == ("qwen3", False, True)
    assert rendered["quantization"]["group_size"] == 16
    assert rendered["quantization"]["exclude_modules"] == ["lm_head"]


def test_modelopts_own_config_is_read() -> None:
    theirs: dict[str, Any] = {**render(CONFIGS["qwen3"]), "producer": {"name": "modelopt", "version": "0.47.0"}}
    del theirs["tie_word_embeddings"], theirs["rotary_scaling"]
    spec = parse({**theirs, "share_embedding_table": False}, PATH).spec
    assert (spec.bos_token_id, spec.eos_token_ids, spec.tie_word_embeddings) == (None, (), False)


REQUIRED = ["vocab_size", "head_size", "rotary_base", "norm_epsilon", "mapping", "quantization", "num_key_value_heads"]


@pytest.mark.parametrize("key", REQUIRED)
def test_a_missing_field_is_named(key: str) -> None:
    raw = render(CONFIGS["llama"])
    del raw[key]
    with pytest.raises(ArtefactError, match=rf"config\.json: field '{key}' is missing"):
        parse(raw, PATH)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "GPTForCausalLM"}, "architecture: 'GPTForCausalLM' is not supported"),
        ({"dtype": "float8"}, "dtype: 'float8'"),
        ({"hidden_act": "gelu"}, "hidden_act: 'gelu'"),
        ({"position_embedding_type": "alibi"}, "position_embedding_type: 'alibi'"),
        ({"rotary_scaling": {"type": "yarn"}}, "rotary_scaling: 'yarn'"),
        ({"quantization": {"quant_algo": "NVFP4", "kv_cache_quant_algo": None}}, "quantization.quant_algo: 'NVFP4'"),
        ({"quantization": {"quant_algo": None, "kv_cache_quant_algo": "NVFP4"}}, "kv_cache_quant_algo: 'NVFP4'"),
    ],
)
def test_what_we_do_not_have_is_refused_by_name(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UnsupportedError) as caught:
        parse({**render(CONFIGS["llama"]), **changes}, PATH)
    assert message in str(caught.value)


@pytest.mark.parametrize("changes", [{"vocab_size": "many"}, {"mapping": 1}, {"rotary_base": None}])
def test_a_field_of_a_wrong_type_is_an_artefact_error(changes: dict[str, object]) -> None:
    with pytest.raises(ArtefactError, match="wrong type"):
        parse({**render(CONFIGS["llama"]), **changes}, PATH)


@pytest.mark.parametrize("content", ["{", "[]", None])
def test_an_unreadable_file_is_named(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(ArtefactError, match=r"config\.json: "):
        checkpoint_config.read(tmp_path)


def test_every_field_is_compared_with_the_model() -> None:
    config = CONFIGS["llama"]
    assert differences(config, config.spec, PATH) == []
    lost = dataclasses.replace(config, spec=dataclasses.replace(config.spec, rope_theta=10000.0, rms_norm_eps=1e-6))
    assert [str(problem).splitlines()[0] for problem in differences(lost, config.spec, PATH)] == [
        "config.json: rope_theta: is 10000.0, the model has 500000.0",
        "config.json: rms_norm_eps: is 1e-06, the model has 1e-05",
    ]


def test_a_field_that_only_trtllm_build_reads_is_missed_too(tmp_path: Path) -> None:
    config = CONFIGS["qwen2"]
    checkpoint_config.write(config, tmp_path)
    assert changed_fields(tmp_path) == []
    raw = render(config)
    del raw["qwen_type"]
    (tmp_path / "config.json").write_text(json.dumps({**raw, "attn_bias": False}))
    assert [problem.key for problem in changed_fields(tmp_path)] == ["attn_bias", "qwen_type"]
    (tmp_path / "config.json").write_text(json.dumps({**raw, "producer": {"name": "modelopt"}}))
    assert changed_fields(tmp_path) == []

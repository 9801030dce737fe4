from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import gguf
import numpy as np
import pytest

from scalellm_trt import model_spec
from scalellm_trt.errors import ArtefactError, UnsupportedError
from scalellm_trt.model_source import gguf_config
from scalellm_trt.model_source.gguf_file import GgufFile
from tests.fakes import gguf_models
from tests.fakes.gguf_models import HEAD_DIM, HEADS, HIDDEN, INTERMEDIATE, KV_HEADS, LAYERS

if TYPE_CHECKING:
    from pathlib import Path

VOCAB_SIZE = len(gguf_models.BYTE_TOKENS)


def config_of(path: Path, **arguments: Any) -> dict[str, Any]:
    file = GgufFile(gguf_models.write(path / "m.gguf", **arguments))
    content: dict[str, Any] = json.loads(json.dumps(gguf_config.config(file, gguf_config.read(file))))
    return content


def test_every_field_of_the_config_comes_from_the_file(tmp_path: Path) -> None:
    assert config_of(tmp_path, metadata={"tokenizer.ggml.padding_token_id": 2}) == {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": VOCAB_SIZE,
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD_DIM,
        "hidden_act": "silu",
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-05,  # 9.999999747378752e-06 as float32
        "rope_theta": 500000.0,
        "rope_scaling": None,
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        "use_cache": True,
        "bos_token_id": 1,
        "pad_token_id": 2,
        "eos_token_id": 2,
    }


@pytest.mark.parametrize(
    ("family", "architecture"),
    [("llama", "LlamaForCausalLM"), ("qwen2", "Qwen2ForCausalLM"), ("qwen3", "Qwen3ForCausalLM")],
)
def test_the_config_is_one_that_the_rest_of_the_line_reads(tmp_path: Path, family: str, architecture: str) -> None:
    spec = model_spec.from_hf_config(config_of(tmp_path, family=family))
    assert spec.architecture == architecture
    assert spec.head_dim == HEAD_DIM
    assert spec.rope_theta == 500000.0
    assert spec.eos_token_ids == (2,)
    assert spec.attention_bias == (family == "qwen2")
    assert spec.qk_norm == (family == "qwen3")


def test_an_output_matrix_unties_the_embeddings(tmp_path: Path) -> None:
    tensors = gguf_models.hf_tensors(is_tied=False)
    assert config_of(tmp_path, tensors=tensors)["tie_word_embeddings"] is False


def test_absent_keys_get_llama_cpps_defaults(tmp_path: Path) -> None:
    absent = dict.fromkeys(("llama.rope.freq_base", "llama.rope.dimension_count", "llama.attention.head_count_kv"))
    config = config_of(tmp_path, metadata=absent)
    assert config["rope_theta"] == 10000.0
    assert config["num_key_value_heads"] == HEADS


def test_a_head_size_unlike_the_quotient_is_kept(tmp_path: Path) -> None:
    sizes = {"llama.attention.key_length": 8, "llama.attention.value_length": 8, "llama.rope.dimension_count": 8}
    assert config_of(tmp_path, metadata=sizes)["head_dim"] == 8


def test_the_end_of_a_turn_also_ends_an_answer(tmp_path: Path) -> None:
    ends = {"tokenizer.ggml.eot_token_id": 5, "tokenizer.ggml.eom_token_id": 2}
    file = GgufFile(gguf_models.write(tmp_path / "m.gguf", metadata=ends))
    assert gguf_config.generation_config(file) == {
        "_from_model_config": True,
        "bos_token_id": 1,
        "eos_token_id": [2, 5],
    }


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("F32", "float32"), ("F16", "float16"), ("BF16", "bfloat16"), ("Q8_0", "float16"), ("Q4_1", "float16")],
)
def test_the_type_is_the_narrowest_that_keeps_the_matrices(tmp_path: Path, name: str, dtype: str) -> None:
    quantization = gguf.GGMLQuantizationType[name]
    assert config_of(tmp_path, quantization=quantization)["torch_dtype"] == dtype


@pytest.mark.parametrize(
    "keys",
    [
        {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0},
        {"llama.rope.scale_linear": 4.0},
    ],
)
def test_linear_scaling_is_taken_over(tmp_path: Path, keys: dict[str, Any]) -> None:
    assert config_of(tmp_path, metadata=keys)["rope_scaling"] == {"rope_type": "linear", "factor": 4.0}


def llama3_factors_one_by_one(factor: float, theta: float) -> list[float]:
    """Meta's `apply_scaling`, frequency by frequency."""
    factors = []
    for index in range(0, HEAD_DIM, 2):
        wavelength = 2 * math.pi / (1.0 / theta ** (index / HEAD_DIM))
        if wavelength < 8192 / 4.0:
            factors.append(1.0)
        elif wavelength > 8192 / 1.0:
            factors.append(factor)
        else:
            smooth = (8192 / wavelength - 1.0) / (4.0 - 1.0)
            factors.append(1.0 / ((1 - smooth) / factor + smooth))
    return factors


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_llama_3_scaling_is_found_from_its_factors(tmp_path: Path, factor: float) -> None:
    factors = np.array(llama3_factors_one_by_one(factor, 500000.0), dtype=np.float32)
    assert factors[0] == 1.0
    assert factors[-1] == factor
    assert config_of(tmp_path, extra={"rope_freqs.weight": factors})["rope_scaling"] == {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }


def test_factors_of_one_scale_nothing(tmp_path: Path) -> None:
    factors = np.ones(HEAD_DIM // 2, dtype=np.float32)
    assert config_of(tmp_path, extra={"rope_freqs.weight": factors})["rope_scaling"] is None


def test_factors_of_an_unknown_rule_are_refused(tmp_path: Path) -> None:
    factors = np.linspace(1, 8, HEAD_DIM // 2, dtype=np.float32)
    with pytest.raises(UnsupportedError, match="follows no known rule"):
        config_of(tmp_path, extra={"rope_freqs.weight": factors})


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({"general.architecture": "gpt2"}, "architecture 'gpt2'.*\n.*Supported: llama, qwen2, qwen3"),
        ({"llama.expert_count": 8}, "mixture of experts"),
        ({"llama.rope.dimension_count": 8}, r"llama\.rope\.dimension_count 8, unlike the head size 16"),
        ({"llama.attention.value_length": 8}, r"llama\.attention\.value_length 8"),
        ({"llama.rope.scaling.type": "yarn"}, "by 'yarn'"),
    ],
)
def test_what_a_config_cannot_say_is_refused(tmp_path: Path, metadata: dict[str, Any], said: str) -> None:
    with pytest.raises(UnsupportedError, match=said):
        config_of(tmp_path, metadata=metadata)


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({"llama.block_count": None}, r"llama\.block_count is missing"),
        ({"llama.block_count": 0}, r"llama\.block_count is 0"),
        ({"llama.attention.head_count_kv": 3}, "4 heads, 3 KV heads"),
        ({"llama.attention.head_count_kv": 0}, "0 KV heads"),
    ],
)
def test_a_shape_that_cannot_be_is_damage(tmp_path: Path, metadata: dict[str, Any], said: str) -> None:
    with pytest.raises(ArtefactError, match=said):
        config_of(tmp_path, metadata=metadata)


def test_a_file_without_an_embedding_is_damaged(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match=r"tensor token_embd\.weight is missing"):
        config_of(tmp_path, without=["token_embd.weight"])

"""A GGUF file's metadata in, the Hugging Face `config.json` and `generation_config.json` of its model out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from scalellm_trt.model_source.gguf_file import GgufFile

Dtype = Literal["float16", "bfloat16", "float32"]

ROPE_FACTORS_TENSOR = "rope_freqs.weight"
OUTPUT_TENSOR = "output.weight"
_EMBEDDING_TENSOR = "token_embd.weight"
_DEFAULT_ROPE_BASE = 10000.0  # llama.cpp's, where a file does not say

# Llama 3.1's, 3.2's and 3.3's config.json; `factor` is theirs to choose (8 or 32).
_LLAMA3_LOW, _LLAMA3_HIGH, _LLAMA3_CONTEXT = 1.0, 4.0, 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """What tells one architecture from another.

    Attributes:
        name: GGUF's `general.architecture` and the prefix of its keys.
        architecture: Hugging Face's class.
        model_type: Hugging Face's `model_type`.
        has_permuted_qk: the converter reordered the rows of q and k for ggml's rotary embedding of neighbours.
        has_qkv_bias: q, k and v have a bias.
        has_qk_norm: q and k are normalized per head.
    """

    name: str
    architecture: str
    model_type: str
    has_permuted_qk: bool = False
    has_qkv_bias: bool = False
    has_qk_norm: bool = False


_FAMILIES = {
    family.name: family
    for family in (
        Family(name="llama", architecture="LlamaForCausalLM", model_type="llama", has_permuted_qk=True),
        Family(name="qwen2", architecture="Qwen2ForCausalLM", model_type="qwen2", has_qkv_bias=True),
        Family(name="qwen3", architecture="Qwen3ForCausalLM", model_type="qwen3", has_qk_norm=True),
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufModel:
    """The shape of the model in a GGUF file. Sizes are counts of elements."""

    family: Family
    num_layers: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    max_position_embeddings: int
    rms_norm_eps: float
    rope_theta: float
    rope_scaling: dict[str, str | float | int] | None
    has_tied_embeddings: bool
    dtype: Dtype


def read(file: GgufFile) -> GgufModel:
    """Read the shape of the model.

    Raises:
        UnsupportedError: another architecture, or a feature that config.json cannot express.
        ArtefactError: a key or tensor that every such model has is missing.
    """
    name = file.require("general.architecture", str)
    family = _FAMILIES.get(name)
    if family is None:
        hint = f"Supported: {', '.join(_FAMILIES)} (Mistral files are llama)."
        file.refuse(f"holds a model of the architecture {name!r}", hint)
    if file.get(f"{name}.expert_count", int, 0) > 0:
        file.refuse("holds a mixture of experts", "Supported: dense models.")
    hidden_size, num_heads = (
        _positive(file, f"{name}.embedding_length"),
        _positive(file, f"{name}.attention.head_count"),
    )
    head_dim = file.get(f"{name}.attention.key_length", int, hidden_size // num_heads)
    num_kv_heads = file.get(f"{name}.attention.head_count_kv", int, num_heads)
    _refuse_odd_heads(file, name, num_heads, num_kv_heads, head_dim)
    rope_theta = file.get(f"{name}.rope.freq_base", float, _DEFAULT_ROPE_BASE)
    if _EMBEDDING_TENSOR not in file.tensors:
        file.fail(f"tensor {_EMBEDDING_TENSOR} is missing")
    return GgufModel(
        family=family,
        num_layers=_positive(file, f"{name}.block_count"),
        hidden_size=hidden_size,
        intermediate_size=_positive(file, f"{name}.feed_forward_length"),
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        vocab_size=file.tensors[_EMBEDDING_TENSOR].shape[0],
        max_position_embeddings=_positive(file, f"{name}.context_length"),
        rms_norm_eps=_shortest(file.require(f"{name}.attention.layer_norm_rms_epsilon", float)),
        rope_theta=_shortest(rope_theta),
        rope_scaling=_rope_scaling(file, name, rope_theta, head_dim),
        has_tied_embeddings=OUTPUT_TENSOR not in file.tensors,
        dtype=_dtype(file),
    )


def config(file: GgufFile, model: GgufModel) -> dict[str, object]:
    """Return config.json's content, as transformers 4 writes it (transformers 5 reads it too)."""
    return {
        "architectures": [model.family.architecture],
        "model_type": model.family.model_type,
        "vocab_size": model.vocab_size,
        "hidden_size": model.hidden_size,
        "intermediate_size": model.intermediate_size,
        "num_hidden_layers": model.num_layers,
        "num_attention_heads": model.num_heads,
        "num_key_value_heads": model.num_kv_heads,
        "head_dim": model.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": model.max_position_embeddings,
        "rms_norm_eps": model.rms_norm_eps,
        "rope_theta": model.rope_theta,
        "rope_scaling": model.rope_scaling,
        "attention_bias": False,  # Qwen2's bias on q, k and v is part of its class, not of this field
        "mlp_bias": False,
        "tie_word_embeddings": model.has_tied_embeddings,
        "torch_dtype": model.dtype,
        "use_cache": True,
        **token_ids(file),
    }


def generation_config(file: GgufFile) -> dict[str, object]:
    """Return generation_config.json's content: the ids that begin, end and fill a sequence."""
    return {"_from_model_config": True, **token_ids(file)}


def token_ids(file: GgufFile) -> dict[str, int | list[int]]:
    """Return bos, eos and pad ids, those that the file names; several eos where a turn ends unlike a text."""
    ids: dict[str, int | list[int]] = {}
    for name, key in (("bos_token_id", "bos_token_id"), ("pad_token_id", "padding_token_id")):
        if f"tokenizer.ggml.{key}" in file.metadata:
            ids[name] = file.require(f"tokenizer.ggml.{key}", int)
    ends = [f"tokenizer.ggml.{name}_token_id" for name in ("eos", "eot", "eom")]
    found = list(dict.fromkeys(file.require(key, int) for key in ends if key in file.metadata))
    if found:
        ids["eos_token_id"] = found[0] if len(found) == 1 else found
    return ids


def _positive(file: GgufFile, key: str) -> int:
    value = file.require(key, int)
    if value <= 0:
        file.fail(f"metadata {key} is {value}")
    return value


def _refuse_odd_heads(file: GgufFile, name: str, num_heads: int, num_kv_heads: int, head_dim: int) -> None:
    if num_kv_heads <= 0 or num_heads % num_kv_heads or head_dim <= 0 or head_dim % 2:
        file.fail(f"{num_heads} heads, {num_kv_heads} KV heads and a head size of {head_dim} do not go together")
    for key in ("attention.value_length", "rope.dimension_count"):
        found = file.get(f"{name}.{key}", int, head_dim)
        if found != head_dim:
            file.refuse(f"has {name}.{key} {found}, unlike the head size {head_dim}")


def _dtype(file: GgufFile) -> Dtype:
    """Choose the narrowest type that keeps what the matrices hold; quantized ones carry float16 scales.

    Vectors do not count: llama.cpp keeps them in F32 whatever the model is.
    """
    kinds = {tensor.type_name for tensor in file.tensors.values() if len(tensor.shape) > 1}
    if kinds == {"BF16"}:
        return "bfloat16"
    return "float32" if kinds and kinds <= {"F32", "BF16"} else "float16"


def _rope_scaling(file: GgufFile, name: str, rope_theta: float, head_dim: int) -> dict[str, str | float | int] | None:
    kind = file.get(f"{name}.rope.scaling.type", str, "none")
    if ROPE_FACTORS_TENSOR in file.tensors:
        tensor = file.tensors[ROPE_FACTORS_TENSOR]
        if tensor.type_name != "F32" or tensor.shape != (head_dim // 2,):
            file.refuse(f"tensor {ROPE_FACTORS_TENSOR} is {tensor.type_name} {tensor.shape}")
        return _llama3_scaling(file, file.raw_rows(tensor).view(np.float32)[0], rope_theta, head_dim)
    if kind == "linear":
        return {"rope_type": "linear", "factor": _shortest(file.require(f"{name}.rope.scaling.factor", float))}
    if kind != "none":
        file.refuse(f"stretches rotary embeddings by {kind!r}", "Supported: none, linear, llama3.")
    # Older converters wrote the factor alone; it meant linear scaling.
    scale = file.get(f"{name}.rope.scale_linear", float, 1.0)
    return None if scale == 1.0 else {"rope_type": "linear", "factor": _shortest(scale)}


def _llama3_scaling(
    file: GgufFile, factors: npt.NDArray[np.float32], rope_theta: float, head_dim: int
) -> dict[str, str | float | int] | None:
    """Find the rule behind the factors that divide each rotary frequency, and prove that it gives them.

    The file holds the rule's result only, which leaves its parameters open up to a common scale.
    """
    if np.allclose(factors, 1.0):
        return None
    largest = float(factors.max())
    if not np.allclose(factors, llama3_factors(largest, rope_theta, head_dim), rtol=1e-4):
        hint = "Supported: the rule of Llama 3.1 to 3.3 (low_freq_factor 1, high_freq_factor 4, 8192 tokens)."
        file.refuse(f"tensor {ROPE_FACTORS_TENSOR} follows no known rule", hint)
    return {
        "rope_type": "llama3",
        "factor": _shortest(largest),
        "low_freq_factor": _LLAMA3_LOW,
        "high_freq_factor": _LLAMA3_HIGH,
        "original_max_position_embeddings": _LLAMA3_CONTEXT,
    }


def llama3_factors(factor: float, rope_theta: float, head_dim: int) -> npt.NDArray[np.float64]:
    """Return what divides each of the `head_dim / 2` rotary frequencies under Llama 3.1's rule.

    Wavelengths over `context / low` tokens are stretched by `factor`, those under `context / high` not at all, and
    between them the frequency is blended (`apply_scaling` in Meta's llama-models reference code).
    """
    wavelengths = 2 * math.pi * rope_theta ** (np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
    smooth = (_LLAMA3_CONTEXT / wavelengths - _LLAMA3_LOW) / (_LLAMA3_HIGH - _LLAMA3_LOW)
    smooth = np.clip(smooth, 0.0, 1.0)
    return np.asarray(1.0 / ((1.0 - smooth) / factor + smooth))


def _shortest(value: float) -> float:
    """Return the float64 that prints as the float32 does: 1e-05, not 9.999999747378752e-06."""
    return float(str(np.float32(value)))

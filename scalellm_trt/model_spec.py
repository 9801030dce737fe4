"""A Hugging Face `config.json` in, a typed `ModelSpec` out: the shape of a Llama-family decoder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from scalellm_trt.errors import Problem, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

Architecture = Literal["LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"]
RopeScalingType = Literal["linear", "llama3"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RopeScaling:
    """How rotary frequencies are stretched past the trained length.

    `linear` divides every frequency by `factor`. `llama3` also blends between the two wavelength
    bounds (Llama 3.1 model card and reference code); the last three fields are set only there.
    """

    kind: RopeScalingType
    factor: float
    low_freq_factor: float | None = None
    high_freq_factor: float | None = None
    original_max_position_embeddings: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """The shape of a decoder. Sizes are counts of elements; `num_*` are counts of things."""

    architecture: Architecture
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    max_position_embeddings: int
    rope_theta: float
    rope_scaling: RopeScaling | None
    rms_norm_eps: float
    tie_word_embeddings: bool
    attention_bias: bool  # Qwen2: bias on q, k and v only
    qk_norm: bool  # Qwen3: RMSNorm over head_dim on q and k before RoPE
    bos_token_id: int | None
    eos_token_ids: tuple[int, ...]

    @property
    def q_size(self) -> int:
        """Rows of the query projection."""
        return self.num_heads * self.head_dim

    @property
    def kv_size(self) -> int:
        """Rows of the key, and of the value, projection."""
        return self.num_kv_heads * self.head_dim

    @property
    def num_linear_parameters(self) -> int:
        """Elements of the decoder layers' weight matrices: those that weight formats compress."""
        attention = self.hidden_size * (self.q_size + 2 * self.kv_size) + self.q_size * self.hidden_size
        return self.num_layers * (attention + 3 * self.hidden_size * self.intermediate_size)

    @property
    def num_embedding_parameters(self) -> int:
        """Elements of the token embedding, plus the output head where it is not tied to it."""
        return self.vocab_size * self.hidden_size * (1 if self.tie_word_embeddings else 2)


def read(directory: Path) -> ModelSpec:
    """Read `directory/config.json`.

    Raises:
        UnsupportedError: the file is not there, is no JSON object, or describes a model outside the Llama family.
    """
    path = directory / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        problem = Problem(message=f"cannot be read as a model config: {error}", file=path)
        raise UnsupportedError([problem]) from error
    if not isinstance(config, dict):
        raise UnsupportedError([Problem(message="is not a JSON object", file=path)])
    return from_hf_config(config, path)


def from_hf_config(config: Mapping[str, Any], path: Path | None = None) -> ModelSpec:
    """Turn a parsed Hugging Face config into a `ModelSpec`; `path` is named in errors.

    Raises:
        UnsupportedError: with every problem of the config at once.
    """
    problems: list[Problem] = []
    architecture = (config.get("architectures") or [None])[0]
    if architecture not in get_args(Architecture):
        problems.append(
            Problem(
                key="architectures",
                message=f"{architecture!r} is not supported",
                file=path,
                hint=f"Supported: {', '.join(get_args(Architecture))}.",
            )
        )
        raise UnsupportedError(problems)
    for key in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"):
        if not isinstance(config.get(key), int) or config[key] <= 0:
            message = f"must be a positive integer, found {config.get(key)!r}"
            problems.append(Problem(key=key, message=message, file=path))
    if config.get("hidden_act", "silu") != "silu":
        message = f"must be silu, found {config['hidden_act']!r}"
        problems.append(Problem(key="hidden_act", message=message, file=path))
    if config.get("use_sliding_window"):
        problems.append(Problem(key="use_sliding_window", message="sliding-window attention is off here", file=path))
    rope_scaling = _rope_scaling(config, path, problems)
    if problems:
        raise UnsupportedError(problems)
    hidden_size, num_heads = config["hidden_size"], config["num_attention_heads"]
    num_kv_heads = config.get("num_key_value_heads") or num_heads
    if num_heads % num_kv_heads:
        message = f"num_attention_heads ({num_heads}) must be divisible by num_key_value_heads ({num_kv_heads})"
        raise UnsupportedError([Problem(key="num_key_value_heads", message=message, file=path)])
    rope_theta = config.get("rope_theta") or (config.get("rope_parameters") or {}).get("rope_theta") or 10000.0
    eos = config.get("eos_token_id")
    return ModelSpec(
        architecture=cast("Architecture", architecture),
        vocab_size=config["vocab_size"],
        hidden_size=hidden_size,
        intermediate_size=config["intermediate_size"],
        num_layers=config["num_hidden_layers"],
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=config.get("head_dim") or hidden_size // num_heads,
        max_position_embeddings=config.get("max_position_embeddings") or 2048,
        rope_theta=float(rope_theta),
        rope_scaling=rope_scaling,
        rms_norm_eps=float(config.get("rms_norm_eps", 1e-6)),
        tie_word_embeddings=bool(config.get("tie_word_embeddings", False)),
        attention_bias=architecture == "Qwen2ForCausalLM" or bool(config.get("attention_bias", False)),
        qk_norm=architecture == "Qwen3ForCausalLM",
        bos_token_id=config.get("bos_token_id"),
        eos_token_ids=() if eos is None else tuple(eos) if isinstance(eos, list) else (eos,),
    )


def _rope_scaling(config: Mapping[str, Any], path: Path | None, problems: list[Problem]) -> RopeScaling | None:
    """Read `rope_scaling` (transformers 4) or `rope_parameters` (transformers 5); note what is not supported."""
    raw = config.get("rope_scaling") or config.get("rope_parameters")
    if not raw:
        return None
    kind = raw.get("rope_type") or raw.get("type")
    if kind in (None, "default"):
        return None
    if kind not in get_args(RopeScalingType):
        message = f"rope type {kind!r} is not supported"
        hint = f"Supported: default, {', '.join(get_args(RopeScalingType))}."
        problems.append(Problem(key="rope_scaling", message=message, file=path, hint=hint))
        return None
    if kind == "linear":
        return RopeScaling(kind="linear", factor=float(raw["factor"]))
    return RopeScaling(
        kind="llama3",
        factor=float(raw["factor"]),
        low_freq_factor=float(raw["low_freq_factor"]),
        high_freq_factor=float(raw["high_freq_factor"]),
        original_max_position_embeddings=int(raw["original_max_position_embeddings"]),
    )

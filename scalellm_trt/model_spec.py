"""A Hugging Face `config.json` in, a typed `ModelSpec` out: the shape of a Llama-family decoder."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from scalellm_trt.errors import Problem, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

Architecture = Literal[
    "LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM", "MixtralForCausalLM"
]
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
    num_experts: int = (
        0  # Mixtral: feed-forward networks per layer, of intermediate_size each; 0 = one, without a router
    )
    num_experts_per_token: int = 0

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
        """Elements of the decoder layers' weight matrices, all experts': those that weight formats compress."""
        return self._linear_parameters(self.num_mlps)

    @property
    def num_active_linear_parameters(self) -> int:
        """Those that one token is multiplied with: of the experts only the ones that it is routed to."""
        return self._linear_parameters(self.num_experts_per_token if self.num_experts else 1)

    @property
    def num_mlps(self) -> int:
        """Feed-forward networks of a layer."""
        return self.num_experts or 1

    @property
    def num_router_parameters(self) -> int:
        """Elements of the matrices that choose the experts; every weight format leaves them alone."""
        return self.num_layers * self.hidden_size * self.num_experts

    @property
    def num_embedding_parameters(self) -> int:
        """Elements of the token embedding, plus the output head where it is not tied to it."""
        return self.vocab_size * self.hidden_size * (1 if self.tie_word_embeddings else 2)

    def _linear_parameters(self, mlps: int) -> int:
        attention = self.hidden_size * (self.q_size + 2 * self.kv_size) + self.q_size * self.hidden_size
        return self.num_layers * (attention + mlps * 3 * self.hidden_size * self.intermediate_size)


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

    A sliding attention window shortens `max_position_embeddings` to itself: up to that length every token sees all
    earlier ones, so the full attention that is compiled computes the same numbers.

    Raises:
        UnsupportedError: with every problem of the config at once.
    """
    fields = _Fields(config, path)
    architecture = _architecture(fields)
    _refuse_variants(fields, architecture)
    num_heads = fields.positive_int("num_attention_heads")
    hidden_size = fields.positive_int("hidden_size")
    spec = ModelSpec(
        architecture=architecture,
        vocab_size=fields.positive_int("vocab_size"),
        hidden_size=hidden_size,
        intermediate_size=fields.positive_int("intermediate_size"),
        num_layers=fields.positive_int("num_hidden_layers"),
        num_heads=num_heads,
        num_kv_heads=fields.positive_int("num_key_value_heads", num_heads),
        head_dim=_head_dim(fields, hidden_size, num_heads),
        max_position_embeddings=_max_position_embeddings(fields, architecture),
        rope_theta=_rope_theta(fields),
        rope_scaling=_rope_scaling(fields),
        rms_norm_eps=fields.positive_float("rms_norm_eps", 1e-6),
        tie_word_embeddings=fields.boolean("tie_word_embeddings"),
        attention_bias=architecture == "Qwen2ForCausalLM",
        qk_norm=architecture == "Qwen3ForCausalLM",
        bos_token_id=next(iter(fields.token_ids("bos_token_id")), None),
        eos_token_ids=fields.token_ids("eos_token_id"),
        num_experts=fields.positive_int("num_local_experts") if architecture == "MixtralForCausalLM" else 0,
        num_experts_per_token=fields.positive_int("num_experts_per_tok") if architecture == "MixtralForCausalLM" else 0,
    )
    if spec.num_experts_per_token > spec.num_experts:
        message = f"{spec.num_experts_per_token} is more than num_local_experts ({spec.num_experts})"
        fields.refuse("num_experts_per_tok", message)
    if spec.num_heads % spec.num_kv_heads:
        message = f"{spec.num_kv_heads} does not divide num_attention_heads ({spec.num_heads})"
        fields.refuse("num_key_value_heads", message)
    if spec.head_dim % 2:
        fields.refuse("head_dim", f"must be even for rotary embeddings, found {spec.head_dim}")
    fields.raise_problems()
    return spec


class _Fields:
    """A config's values, checked as they are read. A bad one is noted and replaced, so that reading goes on."""

    def __init__(self, values: Mapping[str, Any], path: Path | None, prefix: str = "") -> None:
        self.values = values
        self.path = path
        self.problems: list[Problem] = []
        self._prefix = prefix

    def refuse(self, key: str, message: str, hint: str | None = None) -> None:
        """Note a problem of the value under `key`."""
        self.problems.append(Problem(key=f"{self._prefix}{key}", message=message, file=self.path, hint=hint))

    def raise_problems(self) -> None:
        """Raise UnsupportedError if anything was noted."""
        if self.problems:
            raise UnsupportedError(self.problems)

    def positive_int(self, key: str, default: int | None = None) -> int:
        """Return an integer above 0; null counts as absent."""
        value = self.values.get(key)
        if value is None and default is not None:
            return default
        if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
            self.refuse(key, f"must be a positive integer, found {value!r}")
            return 1
        return value

    def positive_float(self, key: str, default: float | None = None) -> float:
        """Return a finite number above 0; null counts as absent."""
        value = self.values.get(key)
        if value is None and default is not None:
            return default
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < math.inf:
            self.refuse(key, f"must be a positive number, found {value!r}")
            return 1.0
        return float(value)

    def boolean(self, key: str) -> bool:
        """Return true or false; absent and null are false."""
        value = self.values.get(key)
        if value is not None and not isinstance(value, bool):
            self.refuse(key, f"must be true or false, found {value!r}")
        return value is True

    def token_ids(self, key: str) -> tuple[int, ...]:
        """Return the ids under `key`, which holds one, a list or null."""
        value = self.values.get(key)
        ids = [] if value is None else value if isinstance(value, list) else [value]
        if any(not isinstance(item, int) or isinstance(item, bool) or item < 0 for item in ids):
            self.refuse(key, f"must be a token id or a list of them, found {value!r}")
            return ()
        return tuple(ids)

    def section(self, key: str) -> _Fields:
        """Return the object under `key`; its problems are noted here."""
        value = self.values.get(key)
        if value is not None and not isinstance(value, dict):
            self.refuse(key, f"must be an object, found {value!r}")
        section = _Fields(value if isinstance(value, dict) else {}, self.path, f"{self._prefix}{key}.")
        section.problems = self.problems
        return section


def _architecture(fields: _Fields) -> Architecture:
    """Return the architecture; nothing else of the config means anything without it, so it raises at once."""
    names = fields.values.get("architectures")
    name = names[0] if isinstance(names, list) and names else None
    if name not in get_args(Architecture):
        supported = ", ".join(get_args(Architecture))
        fields.refuse("architectures", f"{name!r} is not supported", f"Supported: {supported}.")
        fields.raise_problems()
    return cast("Architecture", name)


def _refuse_variants(fields: _Fields, architecture: Architecture) -> None:
    """Note the options that change the arithmetic in a way that the compilers do not know."""
    activation = fields.values.get("hidden_act", "silu")
    if activation != "silu":
        fields.refuse("hidden_act", f"must be silu, found {activation!r}")
    if architecture != "Qwen2ForCausalLM" and fields.boolean("attention_bias"):
        hint = "Only Qwen2's bias on q, k and v is known; a bias on the output projection is not."
        fields.refuse("attention_bias", f"is not supported for {architecture}", hint)
    if fields.boolean("mlp_bias"):
        fields.refuse("mlp_bias", "is not supported")
    if fields.positive_float("partial_rotary_factor", 1.0) != 1.0:
        fields.refuse("partial_rotary_factor", "must be 1: rotary embeddings cover the whole head")
    if fields.values.get("quantization_config"):
        hint = "Take the original 16-bit model; the recipe says how to quantize it."
        fields.refuse("quantization_config", "the weights are quantized already", hint)


def _head_dim(fields: _Fields, hidden_size: int, num_heads: int) -> int:
    if fields.values.get("head_dim") is None and hidden_size % num_heads:
        message = f"is absent, and num_attention_heads ({num_heads}) does not divide hidden_size ({hidden_size})"
        fields.refuse("head_dim", message)
    return fields.positive_int("head_dim", max(1, hidden_size // num_heads))


def _max_position_embeddings(fields: _Fields, architecture: Architecture) -> int:
    trained = fields.positive_int("max_position_embeddings", 2048)
    is_qwen = architecture in ("Qwen2ForCausalLM", "Qwen3ForCausalLM")
    if is_qwen and not fields.boolean("use_sliding_window"):
        return trained  # the window stands in the config of every Qwen model, used or not
    return min(trained, fields.positive_int("sliding_window", trained))


def _rope_section(fields: _Fields) -> _Fields:
    """Return `rope_parameters` (transformers 5) where it is, else `rope_scaling` (transformers 4)."""
    return fields.section("rope_parameters" if fields.values.get("rope_parameters") else "rope_scaling")


def _rope_theta(fields: _Fields) -> float:
    source = fields if fields.values.get("rope_theta") is not None else _rope_section(fields)
    return source.positive_float("rope_theta", 10000.0)


def _rope_scaling(fields: _Fields) -> RopeScaling | None:
    section = _rope_section(fields)
    kind = section.values.get("rope_type") or section.values.get("type")
    if kind in (None, "default"):
        return None
    if kind not in get_args(RopeScalingType):
        hint = f"Supported: default, {', '.join(get_args(RopeScalingType))}."
        section.refuse("rope_type", f"{kind!r} is not supported", hint)
        return None
    if kind == "linear":
        return RopeScaling(kind="linear", factor=section.positive_float("factor"))
    scaling = RopeScaling(
        kind="llama3",
        factor=section.positive_float("factor"),
        low_freq_factor=section.positive_float("low_freq_factor"),
        high_freq_factor=section.positive_float("high_freq_factor"),
        original_max_position_embeddings=section.positive_int("original_max_position_embeddings"),
    )
    if scaling.low_freq_factor == scaling.high_freq_factor and not fields.problems:
        section.refuse("high_freq_factor", "must differ from low_freq_factor")
    return scaling

"""The checkpoint's `config.json`: what a model and its quantization are, as TensorRT-LLM reads it, and back again."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, cast, get_args

import scalellm_trt
from scalellm_trt.checkpoint.dtypes import CheckpointDtype
from scalellm_trt.errors import ArtefactError, Problem, UnsupportedError
from scalellm_trt.model_spec import Architecture, ModelSpec, RopeScaling, RopeScalingType

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

QuantAlgo = Literal["W8A16", "W4A16", "W4A16_AWQ", "W4A8_AWQ", "FP8", "W8A8_SQ_PER_CHANNEL"]
KvCacheQuantAlgo = Literal["FP8", "INT8"]

_PRODUCER: Final = "scalellm-trt"
_REBUILD: Final = "Build the checkpoint again."
NATIVE_ALGOS: Final[frozenset[QuantAlgo]] = frozenset({"W8A16", "W4A16"})
"""Formats whose weights are stored in 16 bits and quantized by the compiler."""
GROUPED_ALGOS: Final[frozenset[QuantAlgo]] = frozenset({"W4A16_AWQ", "W4A8_AWQ"})
"""Formats with a scale per `group_size` inputs."""
_RENORMALIZE: Final = 1  # TensorRT-LLM, MoeConfig.ExpertScaleNormalizationMode: the chosen experts' weights sum to 1
# Only the Qwen model class of TensorRT-LLM asks for it.
_QWEN_TYPES: Final[dict[Architecture, str]] = {"Qwen2ForCausalLM": "qwen2", "Qwen3ForCausalLM": "qwen3"}


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointConfig:
    """What `config.json` says.

    Attributes:
        spec: the model's shape.
        dtype: element type of every tensor that is not quantized, and of the compiled model's activations.
        logits_dtype: element type of the engine's logits.
        quant_algo: TensorRT-LLM's name of the weight format; None is full precision.
        kv_cache_quant_algo: TensorRT-LLM's name of the KV cache format; None is `dtype`.
        group_size: input columns that share one scale; None where a scale belongs to more.
        tp_size: tensor parallel ranks.
        pp_size: pipeline parallel ranks.
    """

    spec: ModelSpec
    dtype: CheckpointDtype
    logits_dtype: CheckpointDtype = "float32"
    quant_algo: QuantAlgo | None = None
    kv_cache_quant_algo: KvCacheQuantAlgo | None = None
    group_size: int | None = None
    tp_size: int = 1
    pp_size: int = 1


def render(config: CheckpointConfig) -> dict[str, object]:
    """Return the complete JSON object; `parse` is its inverse.

    Names and defaults are those of TensorRT-LLM's `PretrainedConfig`, `LLaMAConfig` and `QWenConfig`. Keys that those
    do not know (`tie_word_embeddings`, `producer`) are kept by it as plain attributes.
    """
    spec = config.spec
    rendered: dict[str, object] = {
        "producer": {
            "name": _PRODUCER,
            "version": scalellm_trt.__version__,
            "bos_token_id": spec.bos_token_id,
            "eos_token_ids": list(spec.eos_token_ids),
        },
        "architecture": spec.architecture,
        "dtype": config.dtype,
        "logits_dtype": config.logits_dtype,
        "vocab_size": spec.vocab_size,
        "hidden_size": spec.hidden_size,
        "intermediate_size": spec.intermediate_size,
        "num_hidden_layers": spec.num_layers,
        "num_attention_heads": spec.num_heads,
        "num_key_value_heads": spec.num_kv_heads,
        "head_size": spec.head_dim,
        "hidden_act": _hidden_act(spec),
        "norm_epsilon": spec.rms_norm_eps,
        "qk_layernorm": spec.qk_norm,
        "attn_bias": spec.attention_bias,
        "mlp_bias": False,
        "position_embedding_type": "rope_gpt_neox",
        "max_position_embeddings": spec.max_position_embeddings,
        "rotary_base": spec.rope_theta,
        "rotary_scaling": None if spec.rope_scaling is None else _render_rope_scaling(spec.rope_scaling),
        "rotary_embedding_dim": spec.head_dim,
        "tie_word_embeddings": spec.tie_word_embeddings,
        "use_parallel_embedding": config.tp_size > 1,
        "embedding_sharding_dim": 0,
        "disable_weight_only_quant_plugin": False,
        "mapping": _render_mapping(config),
        "quantization": _render_quantization(config),
    }
    if spec.architecture in _QWEN_TYPES:
        rendered["qwen_type"] = _QWEN_TYPES[spec.architecture]
    else:
        rendered["residual_mlp"] = False
    if spec.num_experts:
        rendered["moe"] = {
            "num_experts": spec.num_experts,
            "top_k": spec.num_experts_per_token,
            "normalization_mode": _RENORMALIZE,
        }
    return rendered


def _hidden_act(spec: ModelSpec) -> str:
    """A dense MLP of TensorRT-LLM is gated by its class, experts by the name of their activation."""
    return "swiglu" if spec.num_experts else "silu"


def _render_mapping(config: CheckpointConfig) -> dict[str, int]:
    mapping = {
        "world_size": config.tp_size * config.pp_size,
        "tp_size": config.tp_size,
        "pp_size": config.pp_size,
    }
    if config.spec.num_experts:  # each expert is cut, none is left out
        mapping |= {"moe_tp_size": config.tp_size, "moe_ep_size": 1}
    return mapping


def _render_rope_scaling(scaling: RopeScaling) -> dict[str, object]:
    """Both spellings of the type: TensorRT-LLM asks for `type` first, newer generations for `rope_type` too."""
    values = {key: value for key, value in dataclasses.asdict(scaling).items() if value is not None}
    kind = values.pop("kind")
    return {"type": kind, "rope_type": kind, **values}


def _render_quantization(config: CheckpointConfig) -> dict[str, object]:
    """Return TensorRT-LLM's `QuantConfig`, which refuses unknown keys.

    `exclude_modules` stays null for the native formats: a list would replace the built-in one, which keeps the
    vocabulary embedding and the routers in floating point, and would be compared with tensors' names on loading. A
    packed format needs the list as ModelOpt writes it: every router by name, then the head.
    """
    quantization: dict[str, object] = {
        "quant_algo": config.quant_algo,
        "kv_cache_quant_algo": config.kv_cache_quant_algo,
    }
    if config.quant_algo is None or config.quant_algo in NATIVE_ALGOS:
        return {**quantization, "exclude_modules": None}
    if config.group_size is not None:
        quantization |= {"group_size": config.group_size, "has_zero_point": False, "pre_quant_scale": True}
    routers = range(config.spec.num_layers if config.spec.num_experts else 0)
    excluded = [*(f"transformer.layers.{layer}.mlp.router" for layer in routers), "lm_head"]
    return {**quantization, "exclude_modules": excluded}


def write(config: CheckpointConfig, directory: Path) -> None:
    """Write `directory/config.json`."""
    text = json.dumps(render(config), indent=2) + "\n"
    (directory / "config.json").write_text(text, encoding="utf-8")


def read(directory: Path) -> CheckpointConfig:
    """Read `directory/config.json`.

    Raises:
        ArtefactError: the file is missing, no JSON object, or lacks a field.
        UnsupportedError: it describes a model or format that we do not have.
    """
    path = directory / "config.json"
    return parse(_load(path), path)


def _load(path: Path) -> dict[str, Any]:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        message = f"{path}: cannot be read as a checkpoint's config: {error}"
        raise ArtefactError(message, hint=_REBUILD) from error
    if not isinstance(raw, dict):
        message = f"{path}: is not a JSON object"
        raise ArtefactError(message, hint=_REBUILD)
    return raw


def changed_fields(directory: Path) -> list[Problem]:
    """Return the fields of a config of ours that are missing or say something else than `render` writes.

    `parse` asks only for what a compiler of ours needs; `trtllm-build` reads more. A config that another tool wrote
    gives no problems: it may know other fields.

    Raises:
        ArtefactError, UnsupportedError: as `read`.
    """
    path = directory / "config.json"
    raw = _load(path)
    expected = render(parse(raw, path))
    if (raw.get("producer") or {}).get("name") != _PRODUCER:
        return []
    return [
        Problem(file=path, key=key, message=f"is {raw.get(key)!r}, {value!r} is expected", hint=_REBUILD)
        for key, value in expected.items()
        if key != "producer" and (key not in raw or raw[key] != value)
    ]


def parse(raw: Mapping[str, Any], path: Path) -> CheckpointConfig:
    """Turn a checkpoint's parsed `config.json` into a `CheckpointConfig`; `path` is named in errors.

    A config that another tool wrote is taken too, as long as it says all that the model's shape needs.

    Raises:
        ArtefactError: a field is missing or has a wrong type.
        UnsupportedError: it describes a model or format that we do not have.
    """
    _check_choices(raw, path)
    try:
        return _parse(raw)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"field {error} is missing" if isinstance(error, KeyError) else f"a field has a wrong type: {error}"
        message = f"{path}: {what}"
        raise ArtefactError(message, hint=_REBUILD) from error


def _check_choices(raw: Mapping[str, Any], path: Path) -> None:
    quantization = raw.get("quantization") or {}
    rope_type = _rope_type(raw.get("rotary_scaling") or {})
    choices: tuple[tuple[str, object, tuple[object, ...]], ...] = (
        ("architecture", raw.get("architecture"), get_args(Architecture)),
        ("dtype", raw.get("dtype"), get_args(CheckpointDtype)),
        ("logits_dtype", raw.get("logits_dtype", "float32"), get_args(CheckpointDtype)),
        ("hidden_act", raw.get("hidden_act"), ("swiglu",) if raw.get("moe") else ("silu",)),
        ("position_embedding_type", raw.get("position_embedding_type"), ("rope_gpt_neox",)),
        ("rotary_scaling", rope_type, (None, *get_args(RopeScalingType))),
        ("quantization.quant_algo", quantization.get("quant_algo"), (None, *get_args(QuantAlgo))),
        ("quantization.kv_cache_quant_algo", quantization.get("kv_cache_quant_algo"), (None, "FP8", "INT8")),
    )
    problems = [
        Problem(file=path, key=key, message=f"{found!r} is not supported", hint=f"Supported: {_listed(allowed)}.")
        for key, found, allowed in choices
        if found not in allowed
    ]
    if problems:
        raise UnsupportedError(problems)


def _listed(values: tuple[object, ...]) -> str:
    return ", ".join("null" if value is None else str(value) for value in values)


def _parse(raw: Mapping[str, Any]) -> CheckpointConfig:
    producer, quantization, mapping = raw.get("producer") or {}, raw["quantization"], raw["mapping"]
    moe = raw.get("moe") or {}
    architecture = cast("Architecture", raw["architecture"])
    quant_algo = quantization["quant_algo"]
    spec = ModelSpec(
        architecture=architecture,
        vocab_size=int(raw["vocab_size"]),
        hidden_size=int(raw["hidden_size"]),
        intermediate_size=int(raw["intermediate_size"]),
        num_layers=int(raw["num_hidden_layers"]),
        num_heads=int(raw["num_attention_heads"]),
        num_kv_heads=int(raw["num_key_value_heads"]),
        head_dim=int(raw["head_size"]),
        max_position_embeddings=int(raw["max_position_embeddings"]),
        rope_theta=float(raw["rotary_base"]),
        rope_scaling=_parse_rope_scaling(raw.get("rotary_scaling")),
        rms_norm_eps=float(raw["norm_epsilon"]),
        tie_word_embeddings=bool(raw.get("tie_word_embeddings", raw.get("share_embedding_table", False))),
        attention_bias=architecture == "Qwen2ForCausalLM",
        qk_norm=architecture == "Qwen3ForCausalLM",
        bos_token_id=producer.get("bos_token_id"),
        eos_token_ids=tuple(producer.get("eos_token_ids", ())),
        num_experts=int(moe.get("num_experts", 0)),
        num_experts_per_token=int(moe.get("top_k", 0)),
    )
    return CheckpointConfig(
        spec=spec,
        dtype=raw["dtype"],
        logits_dtype=raw.get("logits_dtype", "float32"),
        quant_algo=quant_algo,
        kv_cache_quant_algo=quantization["kv_cache_quant_algo"],
        group_size=int(quantization["group_size"]) if quant_algo in GROUPED_ALGOS else None,
        tp_size=int(mapping["tp_size"]),
        pp_size=int(mapping["pp_size"]),
    )


def _rope_type(raw: Mapping[str, Any]) -> str | None:
    return raw.get("type") or raw.get("rope_type")


def _parse_rope_scaling(raw: Mapping[str, Any] | None) -> RopeScaling | None:
    if not raw:
        return None
    if _rope_type(raw) == "linear":
        return RopeScaling(kind="linear", factor=float(raw["factor"]))
    return RopeScaling(
        kind="llama3",
        factor=float(raw["factor"]),
        low_freq_factor=float(raw["low_freq_factor"]),
        high_freq_factor=float(raw["high_freq_factor"]),
        original_max_position_embeddings=int(raw["original_max_position_embeddings"]),
    )


def differences(config: CheckpointConfig, spec: ModelSpec, path: Path) -> list[Problem]:
    """Compare a checkpoint's config with the model it was made from, field by field.

    A config that lost `rotary_base` still loads, still answers, and answers nonsense: hence this.
    """
    return [
        Problem(
            file=path,
            key=field.name,
            message=f"is {getattr(config.spec, field.name)!r}, the model has {getattr(spec, field.name)!r}",
            hint=_REBUILD,
        )
        for field in dataclasses.fields(ModelSpec)
        if getattr(config.spec, field.name) != getattr(spec, field.name)
    ]

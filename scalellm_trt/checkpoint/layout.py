"""Which tensors a Llama-family checkpoint holds: TensorRT-LLM's names, shapes and types, and where they come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from scalellm_trt.checkpoint.dtypes import STORED_DTYPES
from scalellm_trt.checkpoint.tensor_file import TensorLayout
from scalellm_trt.errors import Problem, UnsupportedError

if TYPE_CHECKING:
    from scalellm_trt.checkpoint.config import CheckpointConfig
    from scalellm_trt.model_spec import ModelSpec

VOCAB_EMBEDDING: Final = "transformer.vocab_embedding"
LM_HEAD: Final = "lm_head"
FINAL_NORM: Final = "transformer.ln_f"


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceTensor:
    """A 16-bit tensor of the checkpoint as it is made: `parts` of the Hugging Face model, stacked along rows.

    Attributes:
        shape: of the result.
        parts: name → rows that it gives, in order.
    """

    shape: tuple[int, ...]
    parts: tuple[tuple[str, int], ...]


def layer_prefix(layer: int) -> str:
    """Return what the names of a decoder layer's tensors begin with."""
    return f"transformer.layers.{layer}"


def linear_shapes(spec: ModelSpec) -> dict[str, tuple[int, int]]:
    """Return (out, in) of each linear of a decoder layer, by its name within the layer."""
    return {
        "attention.qkv": (spec.q_size + 2 * spec.kv_size, spec.hidden_size),
        "attention.dense": (spec.hidden_size, spec.q_size),
        "mlp.fc": (spec.intermediate_size, spec.hidden_size),
        "mlp.gate": (spec.intermediate_size, spec.hidden_size),
        "mlp.proj": (spec.hidden_size, spec.intermediate_size),
    }


def quantized_linears(spec: ModelSpec) -> list[str]:
    """Return the prefix of every linear that a weight format applies to: all of the layers', never `lm_head`."""
    return [f"{layer_prefix(layer)}.{name}" for layer in range(spec.num_layers) for name in linear_shapes(spec)]


def source_tensors(spec: ModelSpec) -> dict[str, SourceTensor]:
    """Return, for each tensor of the full-precision checkpoint, the tensors of the Hugging Face model it is made of.

    `mlp.fc` is the branch that goes through the activation (HF `gate_proj`), `mlp.gate` the other one (HF `up_proj`).
    TensorRT-LLM asks for `lm_head.weight` even where it equals the embedding.
    """
    head_source = "model.embed_tokens" if spec.tie_word_embeddings else "lm_head"
    sources = {f"{VOCAB_EMBEDDING}.weight": _whole("model.embed_tokens.weight", spec.vocab_size, spec.hidden_size)}
    for layer in range(spec.num_layers):
        ours, theirs = layer_prefix(layer), f"model.layers.{layer}"
        sources.update({f"{ours}.{name}": source for name, source in _layer_sources(spec, theirs).items()})
    sources[f"{FINAL_NORM}.weight"] = _whole("model.norm.weight", spec.hidden_size)
    sources[f"{LM_HEAD}.weight"] = _whole(f"{head_source}.weight", spec.vocab_size, spec.hidden_size)
    return sources


def _whole(name: str, *shape: int) -> SourceTensor:
    return SourceTensor(shape=shape, parts=((name, shape[0]),))


def _layer_sources(spec: ModelSpec, theirs: str) -> dict[str, SourceTensor]:
    attention = f"{theirs}.self_attn"
    projections = (("q_proj", spec.q_size), ("k_proj", spec.kv_size), ("v_proj", spec.kv_size))
    qkv_rows = spec.q_size + 2 * spec.kv_size
    sources = {
        "input_layernorm.weight": _whole(f"{theirs}.input_layernorm.weight", spec.hidden_size),
        "attention.qkv.weight": SourceTensor(
            shape=(qkv_rows, spec.hidden_size),
            parts=tuple((f"{attention}.{name}.weight", rows) for name, rows in projections),
        ),
        "attention.dense.weight": _whole(f"{attention}.o_proj.weight", spec.hidden_size, spec.q_size),
        "post_layernorm.weight": _whole(f"{theirs}.post_attention_layernorm.weight", spec.hidden_size),
        "mlp.fc.weight": _whole(f"{theirs}.mlp.gate_proj.weight", spec.intermediate_size, spec.hidden_size),
        "mlp.gate.weight": _whole(f"{theirs}.mlp.up_proj.weight", spec.intermediate_size, spec.hidden_size),
        "mlp.proj.weight": _whole(f"{theirs}.mlp.down_proj.weight", spec.hidden_size, spec.intermediate_size),
    }
    if spec.attention_bias:
        sources["attention.qkv.bias"] = SourceTensor(
            shape=(qkv_rows,), parts=tuple((f"{attention}.{name}.bias", rows) for name, rows in projections)
        )
    if spec.qk_norm:
        sources["attention.q_layernorm.weight"] = _whole(f"{attention}.q_norm.weight", spec.head_dim)
        sources["attention.k_layernorm.weight"] = _whole(f"{attention}.k_norm.weight", spec.head_dim)
    return sources


def tensor_layouts(config: CheckpointConfig) -> dict[str, TensorLayout]:
    """Return every tensor that rank 0 of a checkpoint must hold.

    W8A16 and W4A16 are in native form: their weights stay in `config.dtype` and the compiler quantizes them
    (`weight_only`). W4A16_AWQ weights are int8 (out / 2, in), see `packing.pack_rows`; their scales are float32
    (out, in / group_size) and `prequant_scaling_factor` multiplies the input, (in,) in `config.dtype`.
    """
    require_single_rank(config)
    stored = STORED_DTYPES[config.dtype]
    layouts = {
        name: TensorLayout(dtype=stored, shape=source.shape) for name, source in source_tensors(config.spec).items()
    }
    if config.quant_algo == "W4A16_AWQ":
        for prefix in quantized_linears(config.spec):
            layouts.update(_awq_layouts(prefix, layouts[f"{prefix}.weight"], config))
    if config.kv_cache_quant_algo is not None:
        for layer in range(config.spec.num_layers):
            layouts[kv_scale_name(layer)] = TensorLayout(dtype="F32", shape=(1,))
    return layouts


def _awq_layouts(prefix: str, full: TensorLayout, config: CheckpointConfig) -> dict[str, TensorLayout]:
    out_size, in_size = full.shape
    if config.group_size is None:  # our own bug: parse and the planner always set it for AWQ
        message = "W4A16_AWQ needs a group_size"
        raise AssertionError(message)
    return {
        f"{prefix}.weight": TensorLayout(dtype="I8", shape=(out_size // 2, in_size)),
        f"{prefix}.weights_scaling_factor": TensorLayout(dtype="F32", shape=(out_size, in_size // config.group_size)),
        f"{prefix}.prequant_scaling_factor": TensorLayout(dtype=full.dtype, shape=(in_size,)),
    }


def kv_scale_name(layer: int) -> str:
    """Return the name of a layer's KV cache scale, float32 (1,): what a stored value is multiplied with."""
    return f"{layer_prefix(layer)}.attention.kv_cache_scaling_factor"


def require_single_rank(config: CheckpointConfig) -> None:
    """Refuse sharded checkpoints.

    Raises:
        UnsupportedError: tp_size or pp_size is not 1.
    """
    problems = [
        Problem(key=f"parallel.{name}", message=f"{size} ranks are not supported: weights are not split", hint="Use 1.")
        for name, size in (("tp_size", config.tp_size), ("pp_size", config.pp_size))
        if size != 1
    ]
    if problems:
        raise UnsupportedError(problems)

"""Which tensors a Llama-family checkpoint holds: TensorRT-LLM's names and shapes, and what they are made of.

Shapes here are those of the whole model; `shards` cuts them for ranks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from scalellm_trt.checkpoint.dtypes import STORED_DTYPES
from scalellm_trt.checkpoint.tensor_file import TensorLayout

if TYPE_CHECKING:
    from scalellm_trt.checkpoint.config import CheckpointConfig
    from scalellm_trt.model_spec import ModelSpec

VOCAB_EMBEDDING: Final = "transformer.vocab_embedding"
LM_HEAD: Final = "lm_head"
FINAL_NORM: Final = "transformer.ln_f"
ROUTER: Final = "mlp.router"


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceTensor:
    """A 16-bit tensor of the checkpoint as it is made: `parts` of the Hugging Face model, stacked along rows.

    Attributes:
        shape: of the result; (experts, out, in) where experts are stacked.
        parts: name → rows that it gives, in order.
        is_float32: stored in float32 whatever the checkpoint's dtype.
    """

    shape: tuple[int, ...]
    parts: tuple[tuple[str, int], ...]
    is_float32: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Output rows of a linear that tensor parallel ranks share out by themselves, in multiples of `unit` rows."""

    rows: int
    unit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear:
    """One linear of a decoder layer.

    Attributes:
        shape: (out, in), or (experts, out, in).
        blocks: what its output rows consist of; None where ranks share out the input columns instead.
    """

    shape: tuple[int, ...]
    blocks: tuple[Block, ...] | None

    @property
    def out_size(self) -> int:
        """Output rows of one expert."""
        return self.shape[-2]

    @property
    def in_size(self) -> int:
        """Input columns."""
        return self.shape[-1]


def layer_prefix(layer: int) -> str:
    """Return what the names of a decoder layer's tensors begin with."""
    return f"transformer.layers.{layer}"


def linears(spec: ModelSpec) -> dict[str, Linear]:
    """Return each linear of a decoder layer that weight formats apply to, by its name within the layer.

    An expert's `mlp.fc` is both input branches, the one that is not activated (HF `w3`) first: ModelOpt's
    `build_stacked_experts` and TensorRT-LLM's fused SwiGLU. Each branch is shared out by itself.
    """
    heads, half = Block(rows=spec.kv_size, unit=spec.head_dim), Block(rows=spec.intermediate_size, unit=1)
    query = Block(rows=spec.q_size, unit=spec.head_dim)
    hidden, inner = spec.hidden_size, spec.intermediate_size
    attention = {
        "attention.qkv": Linear(shape=(spec.q_size + 2 * spec.kv_size, hidden), blocks=(query, heads, heads)),
        "attention.dense": Linear(shape=(hidden, spec.q_size), blocks=None),
    }
    if spec.num_experts:
        return {
            **attention,
            "mlp.fc": Linear(shape=(spec.num_experts, 2 * inner, hidden), blocks=(half, half)),
            "mlp.proj": Linear(shape=(spec.num_experts, hidden, inner), blocks=None),
        }
    return {
        **attention,
        "mlp.fc": Linear(shape=(inner, hidden), blocks=(half,)),
        "mlp.gate": Linear(shape=(inner, hidden), blocks=(half,)),
        "mlp.proj": Linear(shape=(hidden, inner), blocks=None),
    }


def quantized_linears(spec: ModelSpec) -> list[str]:
    """Return the prefix of every linear that a weight format applies to: all of the layers', never `lm_head`."""
    return [f"{layer_prefix(layer)}.{name}" for layer in range(spec.num_layers) for name in linears(spec)]


def source_tensors(spec: ModelSpec) -> dict[str, SourceTensor]:
    """Return, for each tensor of the full-precision checkpoint, the tensors of the Hugging Face model it is made of.

    `mlp.fc` is the branch that goes through the activation (HF `gate_proj`), `mlp.gate` the other one (HF `up_proj`).
    TensorRT-LLM asks for `lm_head.weight` even where it equals the embedding.
    """
    head_source = "model.embed_tokens" if spec.tie_word_embeddings else "lm_head"
    sources = {f"{VOCAB_EMBEDDING}.weight": _whole("model.embed_tokens.weight", spec.vocab_size, spec.hidden_size)}
    for layer in range(spec.num_layers):
        ours, theirs = layer_prefix(layer), f"model.layers.{layer}"
        for name, source in {**_attention_sources(spec, theirs), **_mlp_sources(spec, theirs)}.items():
            sources[f"{ours}.{name}"] = source
    sources[f"{FINAL_NORM}.weight"] = _whole("model.norm.weight", spec.hidden_size)
    sources[f"{LM_HEAD}.weight"] = _whole(f"{head_source}.weight", spec.vocab_size, spec.hidden_size)
    return sources


def _whole(name: str, *shape: int) -> SourceTensor:
    return SourceTensor(shape=shape, parts=((name, shape[0]),))


def _attention_sources(spec: ModelSpec, theirs: str) -> dict[str, SourceTensor]:
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
    }
    if spec.attention_bias:
        sources["attention.qkv.bias"] = SourceTensor(
            shape=(qkv_rows,), parts=tuple((f"{attention}.{name}.bias", rows) for name, rows in projections)
        )
    if spec.qk_norm:
        sources["attention.q_layernorm.weight"] = _whole(f"{attention}.q_norm.weight", spec.head_dim)
        sources["attention.k_layernorm.weight"] = _whole(f"{attention}.k_norm.weight", spec.head_dim)
    return sources


def _mlp_sources(spec: ModelSpec, theirs: str) -> dict[str, SourceTensor]:
    hidden, inner = spec.hidden_size, spec.intermediate_size
    if not spec.num_experts:
        return {
            "mlp.fc.weight": _whole(f"{theirs}.mlp.gate_proj.weight", inner, hidden),
            "mlp.gate.weight": _whole(f"{theirs}.mlp.up_proj.weight", inner, hidden),
            "mlp.proj.weight": _whole(f"{theirs}.mlp.down_proj.weight", hidden, inner),
        }
    block = f"{theirs}.block_sparse_moe"
    experts = [f"{block}.experts.{expert}" for expert in range(spec.num_experts)]
    # TensorRT-LLM keeps the router in float32: its choice of experts must not depend on rounding.
    router = SourceTensor(
        shape=(spec.num_experts, hidden), parts=((f"{block}.gate.weight", spec.num_experts),), is_float32=True
    )
    return {
        f"{ROUTER}.weight": router,
        "mlp.fc.weight": SourceTensor(
            shape=(spec.num_experts, 2 * inner, hidden),
            parts=tuple((f"{expert}.{name}.weight", inner) for expert in experts for name in ("w3", "w1")),
        ),
        "mlp.proj.weight": SourceTensor(
            shape=(spec.num_experts, hidden, inner), parts=tuple((f"{expert}.w2.weight", hidden) for expert in experts)
        ),
    }


def tensor_layouts(config: CheckpointConfig) -> dict[str, TensorLayout]:
    """Return every tensor of the whole model in the format that `config` says, before it is cut for ranks.

    W8A16 and W4A16 are in native form: their weights stay in `config.dtype` and the compiler quantizes them
    (`weight_only`). The other formats are packed as ModelOpt packs them, see `_packed`.
    """
    stored = STORED_DTYPES[config.dtype]
    layouts = {
        name: TensorLayout(dtype="F32" if source.is_float32 else stored, shape=source.shape)
        for name, source in source_tensors(config.spec).items()
    }
    for layer in range(config.spec.num_layers):
        for name, linear in linears(config.spec).items():
            for part, layout in _packed(linear, config).items():
                layouts[f"{layer_prefix(layer)}.{name}.{part}"] = layout
        if config.kv_cache_quant_algo is not None:
            layouts[kv_scale_name(layer)] = TensorLayout(dtype="F32", shape=(1,))
    return layouts


def _packed(linear: Linear, config: CheckpointConfig) -> dict[str, TensorLayout]:
    """Return what a packed format stores for a linear, by the last part of the name.

    Scales multiply what is stored; `prequant_scaling_factor` multiplies the input, in `config.dtype`. FP8: one scale
    per expert. W8A8_SQ_PER_CHANNEL: one per output row. AWQ: 4-bit values packed in pairs of output rows
    (`packing.pack_rows`) and one scale per `group_size` inputs. `activation_scaling_factor` is amax / 448 or / 127 of
    the input.
    """
    *experts, out_size, in_size = linear.shape
    scalar = TensorLayout(dtype="F32", shape=(1,))
    per_expert = TensorLayout(dtype="F32", shape=(*experts, 1))
    prequant = TensorLayout(dtype=STORED_DTYPES[config.dtype], shape=(*experts, in_size))
    if config.quant_algo == "FP8":
        return {
            "weight": TensorLayout(dtype="F8_E4M3", shape=linear.shape),
            "weights_scaling_factor": per_expert,
            "activation_scaling_factor": scalar,
        }
    if config.quant_algo == "W8A8_SQ_PER_CHANNEL":
        return {
            "weight": TensorLayout(dtype="I8", shape=linear.shape),
            "weights_scaling_factor": TensorLayout(dtype="F32", shape=(*experts, out_size)),
            "activation_scaling_factor": scalar,
            "prequant_scaling_factor": prequant,
        }
    if config.group_size is None:
        return {}
    awq = {
        "weight": TensorLayout(dtype="I8", shape=(*experts, out_size // 2, in_size)),
        "weights_scaling_factor": TensorLayout(dtype="F32", shape=(*experts, out_size, in_size // config.group_size)),
        "prequant_scaling_factor": prequant,
    }
    if config.quant_algo == "W4A8_AWQ":
        awq |= {"weights_scaling_factor_2": per_expert, "activation_scaling_factor": scalar}
    return awq


def kv_scale_name(layer: int) -> str:
    """Return the name of a layer's KV cache scale, float32 (1,): what a stored value is multiplied with."""
    return f"{layer_prefix(layer)}.attention.kv_cache_scaling_factor"

"""A model's tensors in groups, as one rank of an engine holds them: elements, scales and bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from scalellm_trt.memory.formulas import BYTES_OF_DTYPE, kv_heads_per_rank

if TYPE_CHECKING:
    from scalellm_trt.facts import WeightSupport
    from scalellm_trt.model_spec import ModelSpec

SCALE_BYTES = 2  # the engine keeps scales in the model's 16-bit type
NVFP4_BLOCK = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorGroup:
    """Tensors of one kind on one rank.

    Attributes:
        num_elements: weights, without scales.
        num_scale_bytes: of the scales and pre-quantization factors that belong to them.
    """

    name: str
    num_elements: int
    num_bytes: int
    num_scale_bytes: int
    is_quantized: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """How a copy of the model is spread. Bytes are counted for the rank that holds the most."""

    tp_size: int
    pp_size: int

    @property
    def world_size(self) -> int:
        """Number of ranks."""
        return self.tp_size * self.pp_size


def tensor_groups(
    spec: ModelSpec, weights: WeightSupport, group_size: int | None, dtype: str, shard: Shard
) -> tuple[TensorGroup, ...]:
    """Return the groups of the rank that holds the most: qkv, dense, mlp or experts, ends, norms.

    Formulas, for L = ceil(num_layers / pp_size) layers: qkv = hidden * (q + 2 kv heads of this rank) * head_dim;
    dense = q heads of this rank * head_dim * hidden; mlp = 3 * hidden * intermediate / tp_size, times the experts.
    Embedding and lm_head stay 16-bit; the embedding is whole on every rank, the lm_head split over vocab_size.
    With pp_size > 1 they lie on different ranks: the larger one counts.
    """
    tp_size, layers = shard.tp_size, -(-spec.num_layers // shard.pp_size)
    q_rows = -(-spec.num_heads // tp_size) * spec.head_dim
    qkv_rows = q_rows + 2 * kv_heads_per_rank(spec, tp_size) * spec.head_dim
    mlp_rows = -(-spec.intermediate_size // tp_size)
    float_bytes = BYTES_OF_DTYPE[dtype]

    def linear(name: str, matrices: list[tuple[int, int]]) -> TensorGroup:
        return _linear_group(name, matrices * layers, weights, group_size, dtype)

    mlp = [(mlp_rows, spec.hidden_size), (mlp_rows, spec.hidden_size), (spec.hidden_size, mlp_rows)]
    groups = [
        linear("qkv", [(qkv_rows, spec.hidden_size)]),
        linear("dense", [(spec.hidden_size, q_rows)]),
        linear("experts" if spec.num_experts else "mlp", mlp * spec.num_mlps),
    ]
    if spec.num_experts:
        groups.append(_float_group("router", layers * spec.hidden_size * spec.num_experts, 4))
    embedding = spec.vocab_size * spec.hidden_size
    head = -(-spec.vocab_size // tp_size) * spec.hidden_size
    if shard.pp_size == 1:
        groups += [_float_group("embedding", embedding, float_bytes), _float_group("lm_head", head, float_bytes)]
    else:
        groups.append(_float_group("embedding", embedding, float_bytes))
    norms = layers * _norm_elements_per_layer(spec, qkv_rows) + spec.hidden_size
    return (*groups, _float_group("norms", norms, float_bytes))


def total_bytes(groups: tuple[TensorGroup, ...]) -> int:
    """Bytes of all groups, scales included."""
    return sum(group.num_bytes + group.num_scale_bytes for group in groups)


def one_layer_bytes(spec: ModelSpec, dtype: str) -> int:
    """Bytes of one decoder layer before quantization."""
    return spec.num_linear_parameters // spec.num_layers * BYTES_OF_DTYPE[dtype]


def _linear_group(
    name: str, matrices: list[tuple[int, int]], weights: WeightSupport, group_size: int | None, dtype: str
) -> TensorGroup:
    """Count matrices of (output rows, input columns) in their running format."""
    num_elements = sum(rows * columns for rows, columns in matrices)
    if weights.scales == "none":
        num_bytes = num_elements * BYTES_OF_DTYPE[dtype]
    else:
        assert weights.bits is not None, "a supported format has its bits"
        num_bytes = num_elements * weights.bits // 8
    return TensorGroup(
        name=name,
        num_elements=num_elements,
        num_bytes=num_bytes,
        num_scale_bytes=sum(_scale_bytes(rows, columns, weights, group_size) for rows, columns in matrices),
        is_quantized=weights.scales != "none",
    )


def _scale_bytes(rows: int, columns: int, weights: WeightSupport, group_size: int | None) -> int:
    """Bytes of the scales of one matrix.

    AWQ: one scale per group of inputs, and one factor per input channel; per channel: one per output row;
    per tensor: a handful of floats, not counted; NVFP4: one byte per 16 weights.
    """
    if weights.weights == "nvfp4":
        return rows * columns // NVFP4_BLOCK
    if weights.scales == "per_group":
        assert group_size is not None, "formats with groups have a group size once planned"
        return (rows * columns // group_size + columns) * SCALE_BYTES
    return rows * SCALE_BYTES if weights.scales == "per_channel" else 0


def _norm_elements_per_layer(spec: ModelSpec, qkv_rows: int) -> int:
    elements = 2 * spec.hidden_size
    elements += qkv_rows if spec.attention_bias else 0
    return elements + (2 * spec.head_dim if spec.qk_norm else 0)


def _float_group(name: str, num_elements: int, element_bytes: int) -> TensorGroup:
    return TensorGroup(
        name=name,
        num_elements=num_elements,
        num_bytes=num_elements * element_bytes,
        num_scale_bytes=0,
        is_quantized=False,
    )

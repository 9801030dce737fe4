"""A Llama-family decoder as an OpenVINO graph: a shape and a source of weights in, an `ov.Model` out.

The graph is stateful: keys and values live in variables that each call reads and extends. It is written in the forms
that two consumers recognise: the CPU plugin (which fuses RMSNorm, rotary embedding, attention with its state, and
compressed weights) and OpenVINO's paged-attention transformation, which a continuous-batching pipeline applies.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scalellm_trt.model_spec import ModelSpec

# The bindings are imported late and carry no types.
Node: TypeAlias = Any
"""An `openvino.Node` or one of its outputs."""
Model: TypeAlias = Any
"""An `openvino.Model`."""

BATCH_AXIS, LENGTH_AXIS = 0, 2  # of keys and values: (batch, num_kv_heads, length, head_dim)


class DecoderWeights(Protocol):
    """Where the graph gets its weights; names are those of the TensorRT-LLM checkpoint, without `.weight`."""

    def linear(self, x: Node, prefix: str) -> Node:
        """Return `x` (…, in_features) f32 times the matrix called `prefix`: (…, out_features) f32, bias included."""
        ...

    def embedding(self, token_ids: Node) -> Node:
        """Return the rows of the token embedding for `token_ids` (batch, length): (batch, length, hidden_size) f32."""
        ...

    def norm(self, prefix: str) -> NDArray[np.float32]:
        """Return the weight of an RMSNorm: (hidden_size,), or (head_dim,) for the norms on queries and keys."""
        ...


def build_model(spec: ModelSpec, weights: DecoderWeights) -> Model:
    """Write the decoder that `spec` describes.

    Inputs: `input_ids`, `attention_mask` and `position_ids` (batch, length) int64, the mask over past and present
    tokens; `beam_idx` (batch,) int32, the row of the state that each row continues.
    Output: `logits` (batch, length, vocab_size) f32.

    Returns:
        The `ov.Model`. Its constants may be views of the weights' buffers: keep `weights` alive as long as the model.
    """
    import openvino as ov
    from openvino import opset13 as ops

    input_ids = _input("input_ids", 2, "i64")
    attention_mask = _input("attention_mask", 2, "i64")
    position_ids = _input("position_ids", 2, "i64")
    beam_idx = _input("beam_idx", 1, "i32")

    attention = _Attention(spec, input_ids, attention_mask, position_ids, beam_idx)
    hidden = weights.embedding(input_ids)
    for layer in range(spec.num_layers):
        prefix = f"transformer.layers.{layer}"
        x = rms_norm(hidden, weights.norm(f"{prefix}.input_layernorm"), spec.rms_norm_eps)
        hidden = ops.add(hidden, attention.layer(x, weights, layer))
        x = rms_norm(hidden, weights.norm(f"{prefix}.post_layernorm"), spec.rms_norm_eps)
        hidden = ops.add(hidden, _swiglu(x, weights, f"{prefix}.mlp"))
    hidden = rms_norm(hidden, weights.norm("transformer.ln_f"), spec.rms_norm_eps)
    logits = weights.linear(hidden, "lm_head")
    logits.output(0).set_names({"logits"})
    result = ops.result(logits, name="logits")
    inputs = [input_ids, attention_mask, position_ids, beam_idx]
    model = ov.Model([result], attention.assigns, inputs, attention.variables, "decoder")
    # On processors with VNNI the plugin would quantize activations too: not what these weight formats promise.
    model.set_rt_info("0", ["runtime_options", "DYNAMIC_QUANTIZATION_GROUP_SIZE"])
    return model


def inverse_frequencies(spec: ModelSpec) -> NDArray[np.float32]:
    """Return radians per position of each rotated pair: (head_dim / 2,).

    `rope_theta ** (-2i / head_dim)`, stretched by `spec.rope_scaling`: `linear` divides by the factor; `llama3` keeps
    short wavelengths, divides long ones, and interpolates between (Llama 3.1 reference code).
    """
    exponents = np.arange(0, spec.head_dim, 2, dtype=np.float32) / np.float32(spec.head_dim)
    frequencies = (1.0 / np.power(np.float32(spec.rope_theta), exponents)).astype(np.float32)
    scaling = spec.rope_scaling
    if scaling is None:
        return frequencies
    if scaling.kind == "linear":
        return (frequencies / np.float32(scaling.factor)).astype(np.float32)
    # model_spec sets all three for llama3.
    assert scaling.low_freq_factor is not None
    assert scaling.high_freq_factor is not None
    assert scaling.original_max_position_embeddings is not None
    wavelengths_per_context = scaling.original_max_position_embeddings * frequencies / (2 * math.pi)
    band = scaling.high_freq_factor - scaling.low_freq_factor
    keep = np.clip((wavelengths_per_context - scaling.low_freq_factor) / band, 0.0, 1.0)
    return ((1.0 - keep) * frequencies / scaling.factor + keep * frequencies).astype(np.float32)


def rms_norm(x: Node, weight: NDArray[np.float32], eps: float) -> Node:
    """Return `x / sqrt(mean(x², last axis) + eps) * weight` in the form that the CPU plugin fuses to one operation."""
    from openvino import opset13 as ops

    mean_square = ops.reduce_mean(ops.power(x, np.float32(2)), _ints(-1), keep_dims=True)
    scale = ops.divide(np.float32(1), ops.sqrt(ops.add(mean_square, np.float32(eps))))
    return ops.multiply(ops.multiply(x, scale), ops.constant(weight))


def _swiglu(x: Node, weights: DecoderWeights, prefix: str) -> Node:
    """Return the gated feed-forward layer; `fc` is the branch that goes through the activation."""
    from openvino import opset13 as ops

    activated = ops.swish(weights.linear(x, f"{prefix}.fc"))
    return weights.linear(ops.multiply(activated, weights.linear(x, f"{prefix}.gate")), f"{prefix}.proj")


class _Attention:
    """What all layers' attention shares (mask, rotations, the state's batch order), and the state that it makes."""

    def __init__(
        self, spec: ModelSpec, input_ids: Node, attention_mask: Node, position_ids: Node, beam_idx: Node
    ) -> None:
        from openvino import opset13 as ops

        self.spec = spec
        self.assigns: list[Node] = []
        self.variables: list[Node] = []
        self.beam_idx = beam_idx
        self.mask = _causal_mask(input_ids, attention_mask)
        positions = ops.convert(ops.unsqueeze(position_ids, _ints(1, 3)), "f32")
        angles = ops.multiply(positions, ops.constant(inverse_frequencies(spec).reshape(1, 1, 1, -1)))
        both_halves = ops.concat([angles, angles], -1)  # (batch, 1, length, head_dim)
        self.cos, self.sin = ops.cos(both_halves), ops.sin(both_halves)
        batch = ops.gather(ops.shape_of(input_ids), _ints(BATCH_AXIS), np.int64(0))
        shape = ops.concat([batch, ops.constant(_ints(spec.num_kv_heads, 0, spec.head_dim))], 0)
        self.empty_state = ops.broadcast(ops.constant(np.float32(0)), shape)

    def layer(self, x: Node, weights: DecoderWeights, layer: int) -> Node:
        """Return one layer's attention over `x` (batch, length, hidden_size), output projection included."""
        from openvino import opset13 as ops

        spec, prefix = self.spec, f"transformer.layers.{layer}.attention"
        qkv = weights.linear(x, f"{prefix}.qkv")
        query, key, value = ops.variadic_split(qkv, -1, _ints(spec.q_size, spec.kv_size, spec.kv_size)).outputs()
        query = self._heads(query, spec.num_heads)
        key = self._heads(key, spec.num_kv_heads)
        if spec.qk_norm:
            query = rms_norm(query, weights.norm(f"{prefix}.q_layernorm"), spec.rms_norm_eps)
            key = rms_norm(key, weights.norm(f"{prefix}.k_layernorm"), spec.rms_norm_eps)
        query = self._rotate(ops.transpose(query, _ints(0, 2, 1, 3)))
        key = self._rotate(ops.transpose(key, _ints(0, 2, 1, 3)))
        value = ops.transpose(self._heads(value, spec.num_kv_heads), _ints(0, 2, 1, 3))
        key = self._shared_by_queries(self._extended_state(key, f"layer_{layer}.key"))
        value = self._shared_by_queries(self._extended_state(value, f"layer_{layer}.value"))
        mixed = ops.scaled_dot_product_attention(query, key, value, self.mask)
        mixed = ops.reshape(ops.transpose(mixed, _ints(0, 2, 1, 3)), _ints(0, 0, spec.q_size), True)
        return weights.linear(mixed, f"{prefix}.dense")

    def _heads(self, x: Node, num_heads: int) -> Node:
        """(batch, length, num_heads * head_dim) → (batch, length, num_heads, head_dim)."""
        from openvino import opset13 as ops

        return ops.reshape(x, _ints(0, 0, num_heads, self.spec.head_dim), True)

    def _rotate(self, x: Node) -> Node:
        """Turn each pair (i, i + head_dim / 2) of `x` (batch, heads, length, head_dim) by its position's angle."""
        from openvino import opset13 as ops

        half = self.spec.head_dim // 2
        first, second = ops.variadic_split(x, 3, _ints(half, half)).outputs()
        swapped = ops.concat([ops.multiply(second, np.float32(-1)), first], -1)
        return ops.add(ops.multiply(x, self.cos), ops.multiply(swapped, self.sin))

    def _extended_state(self, new: Node, name: str) -> Node:
        """Append `new` to the variable `name` along the length and return the whole."""
        import openvino as ov
        from openvino import opset13 as ops
        from openvino.op.util import Variable, VariableInfo

        info = VariableInfo()
        info.data_shape = ov.PartialShape([-1, self.spec.num_kv_heads, -1, self.spec.head_dim])
        info.data_type = ov.Type.f32
        info.variable_id = name
        variable = Variable(info)
        self.variables.append(variable)
        past = ops.gather(ops.read_value(self.empty_state, variable), self.beam_idx, np.int64(BATCH_AXIS))
        whole = ops.concat([past, new], LENGTH_AXIS)
        self.assigns.append(ops.assign(whole, variable))
        return whole

    def _shared_by_queries(self, x: Node) -> Node:
        """Repeat each key or value head for the query heads that share it: (batch, num_heads, length, head_dim)."""
        from openvino import opset13 as ops

        spec = self.spec
        repeats = spec.num_heads // spec.num_kv_heads
        if repeats == 1:
            return x
        repeated = ops.broadcast(
            ops.unsqueeze(x, np.int64(2)), ops.constant(_ints(1, 1, repeats, 1, 1)), broadcast_spec="BIDIRECTIONAL"
        )
        return ops.reshape(repeated, _ints(0, spec.num_heads, -1, spec.head_dim), True)


def _causal_mask(input_ids: Node, attention_mask: Node) -> Node:
    """Return what is added to the scores, (batch, 1, length, total): 0 where a query may look, else lowest float."""
    from openvino import opset13 as ops

    axis = np.int64(1)
    length = ops.gather(ops.shape_of(input_ids), axis, np.int64(0))
    total = ops.gather(ops.shape_of(attention_mask), axis, np.int64(0))
    keys = ops.range(np.int64(0), total, np.int64(1), "i64")
    queries = ops.unsqueeze(ops.range(ops.subtract(total, length), total, np.int64(1), "i64"), np.int64(1))
    is_past = ops.unsqueeze(ops.less_equal(keys, queries), _ints(0, 1))
    is_token = ops.unsqueeze(ops.not_equal(attention_mask, np.int64(0)), _ints(1, 2))
    return ops.select(ops.logical_and(is_past, is_token), np.float32(0), np.float32(np.finfo(np.float32).min))


def _input(name: str, rank: int, element_type: str) -> Node:
    """Return a parameter of `rank` dimensions of any size, found by its name."""
    import openvino as ov
    from openvino import opset13 as ops

    parameter = ops.parameter(ov.PartialShape([-1] * rank), getattr(ov.Type, element_type), name=name)
    parameter.output(0).set_names({name})
    return parameter


def _ints(*values: int) -> NDArray[np.int64]:
    """Return shapes, orders and axes as the operations want them."""
    return np.array(values, np.int64)

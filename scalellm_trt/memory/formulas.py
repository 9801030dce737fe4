"""Bytes that follow from a model's shape and its formats alone, the same for every engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scalellm_trt.facts import KvCacheSupport, WeightSupport
    from scalellm_trt.model_spec import ModelSpec

GIB = 1 << 30
MIB = 1 << 20
BYTES_OF_DTYPE = {"float16": 2, "bfloat16": 2, "float32": 4}


def format_gib(num_bytes: int) -> str:
    """Render bytes for people: MiB below one GiB, else GiB, one decimal."""
    return f"{num_bytes / MIB:.1f} MiB" if num_bytes < GIB else f"{num_bytes / GIB:.1f} GiB"


def num_blocks(num_tokens: int, tokens_per_block: int) -> int:
    """Return the blocks that hold `num_tokens`: the paged cache gives out whole blocks only."""
    return -(-num_tokens // tokens_per_block)


def kv_heads_per_rank(spec: ModelSpec, tp_size: int) -> int:
    """Return one rank's share of the KV heads; with fewer heads than ranks they are replicated, so never less than 1.

    Source: TensorRT-LLM, examples/models/core/llama (a head per rank at least).
    """
    return -(-spec.num_kv_heads // tp_size)


def kv_cache_bytes_per_block(
    spec: ModelSpec, kv: KvCacheSupport, tokens_per_block: int, tp_size: int = 1, pp_size: int = 1
) -> int:
    """Bytes of one block of the paged cache on one rank: K and V of its layers, with their scales.

    Formula, per layer and KV head, for a block of T tokens and heads of D elements:
    K: T * D * element_bytes + D * key_scale_bytes_per_channel (a scale per channel and block);
    V: T * D * element_bytes + T * value_scale_bytes_per_token.
    Source: TensorRT-LLM kvCacheManager.h (elements); OpenVINO's CPU plugin lays a key block out as (T + 8) x D and a
    value block as T x (D + 8) bytes for u8 (its ConvertPagedAttnInputs pass; 8 = float32 scale and zero point).
    """
    elements = 2 * tokens_per_block * spec.head_dim * kv.element_bytes
    scales = spec.head_dim * kv.key_scale_bytes_per_channel + tokens_per_block * kv.value_scale_bytes_per_token
    return -(-spec.num_layers // pp_size) * kv_heads_per_rank(spec, tp_size) * (elements + scales)


def kv_cache_bytes_per_token(
    spec: ModelSpec, kv: KvCacheSupport, tokens_per_block: int, tp_size: int = 1, pp_size: int = 1
) -> int:
    """Bytes one token occupies on one rank: `kv_cache_bytes_per_block` over its tokens, rounded up.

    SmolLM2-135M with 32-token blocks: 23,040 B in 16 bits, 13,680 B in OpenVINO's unsigned 8 bits; both as measured.
    """
    return -(-kv_cache_bytes_per_block(spec, kv, tokens_per_block, tp_size, pp_size) // tokens_per_block)


def num_linear_rows(spec: ModelSpec) -> int:
    """Return the output channels of all linear layers of the decoder: qkv, dense, fc, gate and proj."""
    attention = spec.q_size + 2 * spec.kv_size + spec.hidden_size
    return spec.num_layers * (attention + spec.num_mlps * (2 * spec.intermediate_size + spec.hidden_size))


def num_linear_columns(spec: ModelSpec) -> int:
    """Return the input channels of all linear layers of the decoder: qkv, dense, fc, gate and proj."""
    mlp = 2 * spec.hidden_size + spec.intermediate_size
    return spec.num_layers * (spec.hidden_size + spec.q_size + spec.num_mlps * mlp)


def num_small_parameters(spec: ModelSpec) -> int:
    """Return the elements of norms and biases."""
    per_layer = 2 * spec.hidden_size
    per_layer += spec.q_size + 2 * spec.kv_size if spec.attention_bias else 0
    per_layer += 2 * spec.head_dim if spec.qk_norm else 0
    return spec.num_layers * per_layer + spec.hidden_size


def num_scales(spec: ModelSpec, weights: WeightSupport, group_size: int | None) -> int:
    """Return the scales of all linear layers: none, one per output channel, or one per group of inputs."""
    if weights.scales == "per_group":
        assert group_size is not None, "formats with groups have a group size once planned"
        return spec.num_linear_parameters // group_size
    return num_linear_rows(spec) if weights.scales == "per_channel" else 0


def linear_bytes(
    spec: ModelSpec, weights: WeightSupport, group_size: int | None, *, float_bytes: int, scale_bytes: int
) -> int:
    """Bytes of the decoder's weight matrices in their running format: elements and scales.

    `float_bytes` counts for an element where the format keeps them floating-point, `scale_bytes` for a scale.
    """
    if weights.scales == "none":
        return spec.num_linear_parameters * float_bytes
    assert weights.bits is not None, "a supported format has its bits"
    return spec.num_linear_parameters * weights.bits // 8 + num_scales(spec, weights, group_size) * scale_bytes


def checkpoint_bytes(spec: ModelSpec, weights: WeightSupport, group_size: int | None, dtype: str) -> int:
    """Bytes of the tensors of a TensorRT-LLM checkpoint.

    Weight-only per-channel formats keep 16-bit weights in the files: each compiler quantizes while it loads.
    AWQ packs two weights per byte, with a float32 scale per group and a 16-bit factor per input channel; FP8 and
    SmoothQuant hold a byte a weight. Embedding and output head are both written, whether tied or not.
    """
    float_bytes = BYTES_OF_DTYPE[dtype]
    ends = 2 * spec.vocab_size * spec.hidden_size + num_small_parameters(spec)
    if weights.scales == "per_group":
        packed = linear_bytes(spec, weights, group_size, float_bytes=float_bytes, scale_bytes=4)
        return packed + num_linear_columns(spec) * 2 + ends * float_bytes
    if weights.is_calibrated:
        return linear_bytes(spec, weights, group_size, float_bytes=float_bytes, scale_bytes=4) + ends * float_bytes
    return (spec.num_linear_parameters + ends) * float_bytes


def activation_bytes_per_token(spec: ModelSpec) -> int:
    """Bytes of intermediate results for one token of a step, in float32.

    Formula: 4 * (3 * intermediate_size + 8 * hidden_size): fc, gate and their product, and the residual stream with
    q, k, v, the attention's result and norms; buffers are reused from layer to layer.
    Measured with openvino-genai 2026.4.1 for SmolLM2-135M: 36 KiB per token, the same.
    """
    return 4 * (3 * spec.intermediate_size + 8 * spec.hidden_size)


def logits_bytes(spec: ModelSpec, max_batch_size: int) -> int:
    """Bytes of logits and of the sampler's copy, float32: only the last token of a sequence gets logits."""
    return 2 * max_batch_size * spec.vocab_size * 4

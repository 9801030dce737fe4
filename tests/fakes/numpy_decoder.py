"""A Llama-family forward pass in numpy and float64, one sequence at a time, straight from the papers' formulas."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scalellm_trt.checkpoint.reader import CheckpointReader
    from scalellm_trt.model_spec import ModelSpec

Array = np.ndarray[Any, np.dtype[np.float64]]


class NumpyDecoder:
    """The model of a checkpoint, without state: every call starts from the first token."""

    def __init__(self, reader: CheckpointReader) -> None:
        self.reader = reader
        self.spec = reader.config.spec

    def logits(self, token_ids: Sequence[int]) -> Array:
        """Return (length, vocab_size)."""
        spec = self.spec
        x = self._tensor("transformer.vocab_embedding.weight")[list(token_ids)]
        for layer in range(spec.num_layers):
            prefix = f"transformer.layers.{layer}"
            x = x + self._attention(self._norm(x, f"{prefix}.input_layernorm"), f"{prefix}.attention")
            x = x + self._mlp(self._norm(x, f"{prefix}.post_layernorm"), f"{prefix}.mlp")
        return self._linear(self._norm(x, "transformer.ln_f"), "lm_head")

    def greedy(self, token_ids: Sequence[int], num_tokens: int) -> list[int]:
        """Return the `num_tokens` ids that continue `token_ids`."""
        ids = list(token_ids)
        for _ in range(num_tokens):
            ids.append(int(self.logits(ids)[-1].argmax()))
        return ids[len(token_ids) :]

    def _tensor(self, name: str) -> Array:
        return self.reader.tensor(name).astype(np.float64)

    def _linear(self, x: Array, prefix: str) -> Array:
        y = x @ self.reader.dequantize(prefix).astype(np.float64).T
        return y + self._tensor(f"{prefix}.bias") if f"{prefix}.bias" in self.reader.names() else y

    def _norm(self, x: Array, prefix: str) -> Array:
        mean_square = np.mean(x * x, axis=-1, keepdims=True)
        scaled: Array = x / np.sqrt(mean_square + self.spec.rms_norm_eps)
        return scaled * self._tensor(f"{prefix}.weight")

    def _mlp(self, x: Array, prefix: str) -> Array:
        gate = self._linear(x, f"{prefix}.fc")
        return self._linear(gate / (1 + np.exp(-gate)) * self._linear(x, f"{prefix}.gate"), f"{prefix}.proj")

    def _attention(self, x: Array, prefix: str) -> Array:
        spec, length = self.spec, len(x)
        qkv = self._linear(x, f"{prefix}.qkv")
        q, k, v = np.split(qkv, [spec.q_size, spec.q_size + spec.kv_size], axis=1)
        queries = q.reshape(length, spec.num_heads, spec.head_dim)
        keys = k.reshape(length, spec.num_kv_heads, spec.head_dim)
        values = v.reshape(length, spec.num_kv_heads, spec.head_dim)
        if spec.qk_norm:
            queries = self._norm(queries, f"{prefix}.q_layernorm")
            keys = self._norm(keys, f"{prefix}.k_layernorm")
        queries, keys = rotate(queries, spec), rotate(keys, spec)
        mixed = np.empty_like(queries)
        causal = np.tril(np.ones((length, length), bool))
        for head in range(spec.num_heads):
            kv_head = head * spec.num_kv_heads // spec.num_heads
            scores = queries[:, head] @ keys[:, kv_head].T / math.sqrt(spec.head_dim)
            weights = np.exp(np.where(causal, scores, -np.inf))
            mixed[:, head] = weights / weights.sum(axis=1, keepdims=True) @ values[:, kv_head]
        return self._linear(mixed.reshape(length, spec.q_size), f"{prefix}.dense")


def rotate(x: Array, spec: ModelSpec) -> Array:
    """Turn each pair (i, i + head_dim / 2) of `x` (length, heads, head_dim), as complex numbers."""
    half = spec.head_dim // 2
    angles = np.array([[position * frequency(i, spec) for i in range(half)] for position in range(len(x))])
    turned = (x[..., :half] + 1j * x[..., half:]) * np.exp(1j * angles)[:, None]
    return np.concatenate([turned.real, turned.imag], axis=-1)


def frequency(pair: int, spec: ModelSpec) -> float:
    """Return radians per position; the blend of `llama3` as its model card's code writes it."""
    plain = float(spec.rope_theta ** (-2 * pair / spec.head_dim))
    scaling = spec.rope_scaling
    if scaling is None:
        return plain
    if scaling.kind == "linear":
        return plain / scaling.factor
    assert scaling.low_freq_factor
    assert scaling.high_freq_factor
    assert scaling.original_max_position_embeddings
    context, wavelength = scaling.original_max_position_embeddings, 2 * math.pi / plain
    if wavelength < context / scaling.high_freq_factor:
        return plain
    if wavelength > context / scaling.low_freq_factor:
        return plain / scaling.factor
    smooth = (context / wavelength - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    return (1 - smooth) * plain / scaling.factor + smooth * plain

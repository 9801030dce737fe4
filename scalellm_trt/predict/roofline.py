"""Seconds of a prefill and of a decode step from a model's shape and a card's peaks: the roofline with two constants.

    prefill = max(F / (peak * MFU), W / (bandwidth * MBU)) + PREFILL_OVERHEAD_S
    step    = max((W + KV) / (bandwidth * MBU), F1 / (peak * STEP_MFU_SHARE * MFU)) + STEP_OVERHEAD_S

with peak and bandwidth times tp_size, and 2 * layers all-reduces per pass where tp_size > 1: each costs
ALL_REDUCE_S and 2 * (tp_size - 1) / tp_size * tokens * hidden_size * 2 bytes over the link. Attention's projections
and MLP count 2 flops a weight, causal attention 2 * layers * q_size * prompt^2. Only an FP8 matrix multiplication uses
the FP8 peak: weight-only formats multiply in 16 bits, so they speed up decoding and not prefill.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Width = Literal["w16", "w8", "w4"]
Gemm = Literal["fp16", "fp8", "weight_only"]

# Fitted over all of data/measurements.yaml's cards; a step's matrices are small, so they reach less of the peak.
STEP_OVERHEAD_S = 0.0014
PREFILL_OVERHEAD_S = 0.0046
ALL_REDUCE_S = 0.00005
STEP_MFU_SHARE = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What decides the arithmetic of a decoder; counts of elements.

    Attributes:
        num_dense_parameters: matrix weights that every token multiplies with.
        num_expert_parameters: matrix weights of all experts of all layers; 0 for a dense model.
        num_head_parameters: of the output head, read once a step.
    """

    num_layers: int
    hidden_size: int
    q_size: int
    kv_size: int
    num_dense_parameters: int
    num_head_parameters: int
    num_expert_parameters: int = 0
    num_experts: int = 0
    num_experts_per_token: int = 0

    @property
    def num_active_parameters(self) -> float:
        """Matrix weights that one token multiplies with."""
        return self.num_dense_parameters + self.num_expert_parameters * self._share_per_token

    def num_read_parameters(self, tokens: int) -> float:
        """Matrix weights that a step over `tokens` reads: an expert that nobody chose is not read.

        Formula: experts * (1 - (1 - k / E)^tokens), tokens choosing independently.
        """
        touched = 1.0 - (1.0 - self._share_per_token) ** tokens
        return self.num_dense_parameters + self.num_expert_parameters * touched

    @property
    def _share_per_token(self) -> float:
        return self.num_experts_per_token / self.num_experts if self.num_experts else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """Bytes of a weight, of a weight of the output head and of an element of the KV cache; how it multiplies."""

    width: Width
    gemm: Gemm
    weight_bytes: float
    head_bytes: float
    kv_bytes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """What one card has at most. `link_bytes_per_s` joins the cards of a tensor-parallel group."""

    peak_flops: float
    bandwidth_bytes_per_s: float
    link_bytes_per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """One forward pass before the constants: seconds at full peak, seconds at full bandwidth, fixed seconds."""

    compute_s: float
    memory_s: float
    fixed_s: float
    mfu_share: float = 1.0

    def seconds(self, mfu: float, mbu: float) -> float:
        """Return the duration with the card's constants."""
        return max(self.compute_s / (mfu * self.mfu_share), self.memory_s / mbu) + self.fixed_s


def prefill(shape: Shape, form: Format, rates: Rates, *, prompt: int, batch: int = 1, tp_size: int = 1) -> Pass:
    """Return the pass that reads `batch` prompts of `prompt` tokens."""
    tokens = batch * prompt
    flops = 2.0 * shape.num_active_parameters * tokens + 2.0 * batch * shape.num_head_parameters
    flops += 2.0 * shape.num_layers * shape.q_size * prompt * prompt * batch
    return Pass(
        compute_s=flops / (rates.peak_flops * tp_size),
        memory_s=_weight_bytes(shape, form, tokens) / (rates.bandwidth_bytes_per_s * tp_size),
        fixed_s=PREFILL_OVERHEAD_S + _all_reduce_s(shape, rates, tokens, tp_size),
    )


def decode_step(shape: Shape, form: Format, rates: Rates, *, context: float, batch: int = 1, tp_size: int = 1) -> Pass:
    """Return the pass that makes one token for each of `batch` sequences of `context` tokens."""
    kv_bytes = 2.0 * shape.num_layers * shape.kv_size * form.kv_bytes * context * batch
    flops = 2.0 * batch * (shape.num_active_parameters + shape.num_head_parameters)
    flops += 4.0 * shape.num_layers * shape.q_size * context * batch
    return Pass(
        compute_s=flops / (rates.peak_flops * tp_size),
        memory_s=(_weight_bytes(shape, form, batch) + kv_bytes) / (rates.bandwidth_bytes_per_s * tp_size),
        fixed_s=STEP_OVERHEAD_S + _all_reduce_s(shape, rates, batch, tp_size),
        mfu_share=STEP_MFU_SHARE,
    )


def _weight_bytes(shape: Shape, form: Format, tokens: int) -> float:
    return shape.num_read_parameters(tokens) * form.weight_bytes + shape.num_head_parameters * form.head_bytes


def _all_reduce_s(shape: Shape, rates: Rates, tokens: int, tp_size: int) -> float:
    if tp_size == 1:
        return 0.0
    moved = 2 * (tp_size - 1) / tp_size * tokens * shape.hidden_size * 2
    return 2 * shape.num_layers * (ALL_REDUCE_S + moved / rates.link_bytes_per_s)

"""The roofline at full peak and full bandwidth: what no server on a piece of hardware can beat, however good it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from scalellm_trt import facts
from scalellm_trt.predict import constants_of, service
from scalellm_trt.predict.roofline import Format, Rates, decode_step, prefill

if TYPE_CHECKING:
    from scalellm_trt.facts import Hardware
    from scalellm_trt.plan import Plan
    from scalellm_trt.predict.roofline import Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceiling:
    """Hardware and a model on it.

    Attributes:
        name: of the hardware, for messages.
        rates: of one card, its highest dense rate of any number format that the model may use.
        tp_size: cards that each matrix is spread over.
        num_cards: all of them, which services share.
        source: where the figures of the hardware come from.
    """

    name: str
    shape: Shape
    form: Format
    rates: Rates
    tp_size: int
    num_cards: int
    source: str

    def min_tpot_ms(self, context: float) -> float:
        """Return the time in which one token's weights and KV cache can be read.

        Formula: (weights + KV cache of context) / (bandwidth * tp_size), ms
        """
        found = decode_step(self.shape, self.form, self.rates, context=context, tp_size=self.tp_size)
        return 1000 * max(found.memory_s, found.compute_s)

    def min_ttft_ms(self, prompt: float) -> float:
        """Return the time in which a prompt can be multiplied through the model.

        Formula: flops of the prompt / (peak * tp_size), ms
        """
        found = prefill(self.shape, self.form, self.rates, prompt=round(prompt), tp_size=self.tp_size)
        return 1000 * max(found.compute_s, found.memory_s)

    @property
    def max_tokens_per_s(self) -> float:
        """Tokens, read and written, that all cards can multiply through the model in a second.

        Formula: cards * peak / (2 * parameters that a token multiplies with), tokens/s
        """
        return self.num_cards * self.rates.peak_flops / (2 * self.shape.num_active_parameters)


def of_plan(
    plan: Plan, *, memory_bandwidth_gb_per_s: float | None = None, tflops: float | None = None
) -> Ceiling | None:
    """Return what a planned service cannot beat on its hardware; None where the hardware's figures are not known.

    Args:
        plan: the service.
        memory_bandwidth_gb_per_s: of the machine at hand, where data/hardware.yaml cannot know it (processors).
        tflops: likewise; without it only the bandwidth limits.
    """
    hardware = facts.hardware()[plan.hardware]
    rates = _rates(hardware, plan, memory_bandwidth_gb_per_s, tflops)
    if rates is None:
        return None
    weights = facts.weight_formats()[f"{plan.backend}/{plan.quantization.weights}"]
    kv = facts.kv_cache_formats()[f"{plan.backend}/{plan.quantization.kv_cache_dtype}"]
    return Ceiling(
        name=hardware.name if memory_bandwidth_gb_per_s is None else f"{memory_bandwidth_gb_per_s:g} GB/s",
        shape=service.shape_of(plan.spec),
        form=Format(
            width="w16",
            gemm="fp16",
            weight_bytes=(weights.bits or 16) / 8,
            head_bytes=min(service.HEAD_BYTES, (weights.bits or 16) / 8),
            kv_bytes=kv.element_bytes,
        ),
        rates=rates,
        tp_size=plan.tp_size,
        num_cards=plan.world_size,
        source="as stated" if memory_bandwidth_gb_per_s is not None else hardware.origin.source,
    )


def _rates(hardware: Hardware, plan: Plan, bandwidth: float | None, tflops: float | None) -> Rates | None:
    if bandwidth is not None:
        peak = float("inf") if tflops is None else tflops * 1e12
        return Rates(peak_flops=peak, bandwidth_bytes_per_s=bandwidth * 1e9, link_bytes_per_s=float("inf"))
    weights = facts.weight_formats()[f"{plan.backend}/{plan.quantization.weights}"]
    known = constants_of(hardware, weights)
    if known is None:
        return None
    # Not what power caps allow: what the silicon has.
    return Rates(
        peak_flops=hardware.tflops[known.tflops_key] * 1e12,
        bandwidth_bytes_per_s=known.rates.bandwidth_bytes_per_s,
        link_bytes_per_s=float("inf"),
    )

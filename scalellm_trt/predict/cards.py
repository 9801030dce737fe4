"""A row of hardware.yaml and a weight format → the rates and constants that the roofline takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from scalellm_trt.predict.roofline import Rates

if TYPE_CHECKING:
    from scalellm_trt.facts import Hardware, WeightSupport
    from scalellm_trt.predict.roofline import Width

PCIE_GB_PER_S = 31.5  # 4.0 x16, where a row says nothing
NO_P2P_SHARE = 0.5  # through host memory every byte crosses the link twice


@dataclass(frozen=True, slots=True, kw_only=True)
class CardConstants:
    """What a card reaches with a format, and where the figures are from.

    Attributes:
        tflops_key: the row's peak that counts: fp16, int8, fp8 or fp4.
        is_borrowed: a constant of this format is not known for this card; the nearest one was taken.
    """

    rates: Rates
    tflops_key: str
    tflops: float
    width: Width
    mfu: float
    mbu: float
    is_borrowed: bool


# Weight format → (peak in the row's tflops, MFU in mfu_prefill, MBU in mbu). Weight-only formats multiply in 16 bits.
_USED: dict[str, tuple[str, str, Width]] = {
    "full_prec": ("fp16", "fp16", "w16"),
    "int8_wo": ("fp16", "weight_only", "w8"),
    "int4_wo": ("fp16", "weight_only", "w4"),
    "int4_awq": ("fp16", "weight_only", "w4"),
    "w4a8_awq": ("fp8", "fp8", "w4"),
    "int8_sq": ("int8", "fp8", "w8"),
    "fp8": ("fp8", "fp8", "w8"),
    "nvfp4": ("fp4", "fp8", "w4"),
}


def constants_of(hardware: Hardware, weights: WeightSupport) -> CardConstants | None:
    """Return what a card reaches with a weight format; None for processors and for cards without figures."""
    tflops_key, mfu_key, width = _USED[weights.weights]
    if hardware.memory_bandwidth_gb_per_s is None or tflops_key not in hardware.tflops or not hardware.mbu:
        return None
    is_borrowed = mfu_key not in hardware.mfu_prefill or width not in hardware.mbu
    mfu = hardware.mfu_prefill.get(mfu_key, min(hardware.mfu_prefill.values()))
    mbu = hardware.mbu.get(width, min(hardware.mbu.values()))
    rates = rates_of(hardware, tflops_key)
    return CardConstants(
        rates=rates,
        tflops_key=tflops_key,
        tflops=rates.peak_flops / 1e12,
        width=width,
        mfu=mfu,
        mbu=mbu,
        is_borrowed=is_borrowed,
    )


def rates_of(hardware: Hardware, tflops_key: str) -> Rates:
    """Return a card's peak (the sustained one where its power cap holds it below), bandwidth and link."""
    assert hardware.memory_bandwidth_gb_per_s is not None, "a card has its bandwidth"
    sustained = hardware.sustained_fp16_tflops if tflops_key == "fp16" else None
    link = hardware.link_gb_per_s or PCIE_GB_PER_S
    return Rates(
        peak_flops=(sustained or hardware.tflops[tflops_key]) * 1e12,
        bandwidth_bytes_per_s=hardware.memory_bandwidth_gb_per_s * 1e9,
        link_bytes_per_s=link * 1e9 * (1.0 if hardware.has_p2p else NO_P2P_SHARE),
    )

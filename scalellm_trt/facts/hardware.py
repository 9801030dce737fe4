"""`data/hardware.yaml`: what a class of machine or card has, and the constants by which its speed is estimated."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

from scalellm_trt.facts import rows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scalellm_trt.facts.rows import Origin, Row

HardwareKind = Literal["cpu", "gpu"]
SPEED_FORMATS = ("fp16", "bf16", "int8", "fp8", "fp4")
MFU_KEYS = ("fp16", "fp8", "weight_only")
MBU_KEYS = ("w16", "w8", "w4")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """A class of machine or card. None = not a property of the class, read from the machine at hand.

    Attributes:
        compute_capability: of a GPU, such as "8.9".
        memory_bytes: usable, as the driver reports it.
        reserved_bytes: memory that a plan leaves alone.
        tflops: dense, by `SPEED_FORMATS`; a format that is not there does not run on the card. GeForce: the rate with
            32-bit accumulation, which TensorRT-LLM uses.
        sustained_fp16_tflops: where the power cap holds the card far below its peak.
        has_p2p: whether GPUs copy to each other without passing through host memory.
        link: what joins several GPUs.
        link_gb_per_s: per direction.
        gpu_names: as `nvidia-smi --query-gpu=name` prints them.
        mfu_prefill: share of the peak that prefill reaches, by `MFU_KEYS`; a missing key is not known.
        mbu: share of the bandwidth that a decode step reaches, by the width of the weights (`MBU_KEYS`).
        error_band: of a speed predicted from these constants: 0.3 = ±30 %.
        is_calibrated: whether the constants were fitted to measured points of this card.
        backends: the backends that run on it.
    """

    name: str
    kind: HardwareKind
    description: str
    compute_capability: str | None
    memory_bytes: int | None
    memory_bandwidth_gb_per_s: float | None
    reserved_bytes: int
    tflops: Mapping[str, float]
    sustained_fp16_tflops: float | None
    is_geforce: bool
    has_p2p: bool
    link: str
    link_gb_per_s: float | None
    tdp_watts: int | None
    gpu_names: tuple[str, ...]
    mfu_prefill: Mapping[str, float]
    mbu: Mapping[str, float]
    error_band: float
    is_calibrated: bool
    backends: tuple[str, ...]
    origin: Origin


@functools.cache
def hardware() -> Mapping[str, Hardware]:
    """Return the classes of hardware by name."""
    return rows.load("hardware.yaml", parse_hardware)


def hardware_of(gpu_name: str) -> Hardware | None:
    """Return the class of a card by the name that nvidia-smi prints; None where it is not known."""
    return next((row for row in hardware().values() if gpu_name in row.gpu_names), None)


def parse_hardware(name: str, row: Row) -> Hardware:
    """Turn one row of hardware.yaml into its type."""
    return Hardware(
        name=name,
        kind=cast("HardwareKind", rows.one_of(row, "kind", ("cpu", "gpu"))),
        description=rows.text(row, "description"),
        compute_capability=rows.text_or_none(row, "compute_capability"),
        memory_bytes=rows.whole_or_none(row, "memory_bytes"),
        memory_bandwidth_gb_per_s=rows.number_or_none(row, "memory_bandwidth_gb_per_s"),
        reserved_bytes=rows.whole(row, "reserved_bytes"),
        tflops=_known(rows.number_table(row, "tflops"), "tflops", SPEED_FORMATS),
        sustained_fp16_tflops=rows.number_or_none(row, "sustained_fp16_tflops"),
        is_geforce=rows.flag(row, "geforce"),
        has_p2p=rows.flag(row, "p2p"),
        link=rows.text(row, "link"),
        link_gb_per_s=rows.number_or_none(row, "link_gb_per_s"),
        tdp_watts=rows.whole_or_none(row, "tdp_watts"),
        gpu_names=rows.texts(row, "gpu_names"),
        mfu_prefill=_known(rows.number_table(row, "mfu_prefill"), "mfu_prefill", MFU_KEYS),
        mbu=_known(rows.number_table(row, "mbu"), "mbu", MBU_KEYS),
        error_band=rows.number(row, "error_band"),
        is_calibrated=rows.flag(row, "calibrated"),
        backends=rows.texts(row, "backends"),
        origin=rows.origin(row),
    )


def _known(table: Mapping[str, float], key: str, allowed: tuple[str, ...]) -> Mapping[str, float]:
    if odd := [name for name in table if name not in allowed]:
        message = f"{key}.{odd[0]} must be one of {', '.join(allowed)}"
        raise TypeError(message)
    return table

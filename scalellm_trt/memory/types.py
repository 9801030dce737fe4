"""Budgets as values: what decides the bytes, and what a stage needs in one place against what is there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from scalellm_trt.detect import Machine
    from scalellm_trt.facts import Hardware, KvCacheSupport, Toolchain, WeightSupport
    from scalellm_trt.model_spec import ModelSpec

Stage = Literal["quantize", "compile", "load", "serve"]
Place = Literal["host", "device", "disk"]

_ESTIMATE = " (estimate)"


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryItem:
    """One line of a budget; `formula` says how the bytes come about."""

    name: str
    num_bytes: int
    formula: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryBudget:
    """What one stage needs in one place, against what is there.

    Attributes:
        is_advisory: measured against this machine although the stage runs elsewhere: it warns and refuses nothing.
    """

    stage: Stage
    place: Place
    items: tuple[MemoryItem, ...]
    available_bytes: int
    is_advisory: bool = False

    @property
    def total_bytes(self) -> int:
        """Sum of the items."""
        return sum(item.num_bytes for item in self.items)

    @property
    def fits(self) -> bool:
        """Whether the sum is within what is there."""
        return self.total_bytes <= self.available_bytes

    def summary(self) -> dict[str, int]:
        """Sum the items by their name up to a colon, in the order of the items: what a reader takes in at a glance."""
        sums: dict[str, int] = {}
        for item in self.items:
            name = item.name.split(":")[0].removesuffix(_ESTIMATE)
            sums[name] = sums.get(name, 0) + item.num_bytes
        return sums

    def labelled(self) -> dict[str, int]:
        """Return the summary for people: "(estimate)" stands behind a name that has items which nobody measured."""
        estimates = {item.name.split(":")[0].removesuffix(_ESTIMATE) for item in self.items if _ESTIMATE in item.name}
        return {f"{name}{_ESTIMATE if name in estimates else ''}": size for name, size in self.summary().items()}

    def item_bytes(self, name: str) -> int:
        """Return the bytes under one name of the summary; 0 where there is none."""
        return self.summary().get(name, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryInputs:
    """Everything that decides how many bytes a build and its service take, with nothing left open.

    Attributes:
        kv_cache_tokens: the KV pool of one service, in whole blocks.
        calibration_tokens: tokens of all calibration samples; 0 where the formats need none.
        calibration_sample_tokens: of the longest one.
        services: copies of the service that run side by side.
    """

    spec: ModelSpec
    dtype: str
    weights: WeightSupport
    group_size: int | None
    kv: KvCacheSupport
    kv_cache_tokens: int
    calibration_tokens: int
    calibration_sample_tokens: int
    max_batch_size: int
    max_input_len: int
    max_seq_len: int
    max_num_tokens: int
    tp_size: int
    pp_size: int
    services: int
    hardware: Hardware
    toolchain: Toolchain
    machine: Machine

"""Bytes of weights, KV cache, activations, buffers and host RAM: pure arithmetic, formulas cited."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Stage = Literal["quantize", "compile", "load", "serve"]
Place = Literal["host", "device"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryItem:
    """One line of a budget; `formula` says how the bytes come about."""

    name: str
    num_bytes: int
    formula: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryBudget:
    """What one stage needs in one place, against what is there."""

    stage: Stage
    place: Place
    items: tuple[MemoryItem, ...]
    available_bytes: int

    @property
    def total_bytes(self) -> int:
        """Sum of the items."""
        return sum(item.num_bytes for item in self.items)

    @property
    def fits(self) -> bool:
        """Whether the sum is within what is there."""
        return self.total_bytes <= self.available_bytes

"""`data/prices.yaml`: what an hour of one card costs; a price always comes with its provider, date and source."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scalellm_trt.facts import rows
from scalellm_trt.facts.rows import Origin

if TYPE_CHECKING:
    import datetime
    from collections.abc import Mapping

    from scalellm_trt.economics.ownership import Ownership
    from scalellm_trt.facts.rows import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """One quote for one card; `is_default` marks the one that a plan takes.

    Attributes:
        owned: how an hour of one's own card comes about; None for a rented one.
    """

    name: str
    gpu: str
    provider: str
    usd_per_hour: float
    is_default: bool
    origin: Origin
    owned: Ownership | None = None

    @property
    def label(self) -> str:
        """Everything that a figure made of it must be read with."""
        return f"{self.usd_per_hour:.3g} USD/h, {self.place}"

    @property
    def place(self) -> str:
        """Who says so, and when."""
        known = dict.fromkeys((self.provider, f"{self.origin.date}", self.origin.source))
        return ", ".join(known)


@functools.cache
def prices() -> Mapping[str, Price]:
    """Return the quotes of data/prices.yaml by name."""
    return rows.load("prices.yaml", parse_price)


def price_of(gpu: str, quotes: Mapping[str, Price] | None = None) -> Price | None:
    """Return the quote that counts for a card: the default one, else the first; None where none is known."""
    of_card = [price for price in (prices() if quotes is None else quotes).values() if price.gpu == gpu]
    return next((price for price in of_card if price.is_default), of_card[0] if of_card else None)


def typed_price(gpu: str, usd_per_hour: float, today: datetime.date) -> Price:
    """Return a price that somebody typed in."""
    origin = Origin(source="as typed", date=today, verified=False)
    return Price(name="typed", gpu=gpu, provider="as typed", usd_per_hour=usd_per_hour, is_default=True, origin=origin)


def parse_price(name: str, row: Row) -> Price:
    """Turn one row of prices.yaml into its type."""
    return Price(
        name=name,
        gpu=rows.text(row, "gpu"),
        provider=rows.text(row, "provider"),
        usd_per_hour=rows.number(row, "usd_per_hour"),
        is_default=rows.flag(row, "default"),
        origin=rows.origin(row),
    )

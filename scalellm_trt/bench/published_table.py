"""ScaleLLM's published scores at prices, as tables and sentences: what follows from them, and what does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scalellm_trt.bench.tables import Table
from scalellm_trt.economics import published
from scalellm_trt.economics.score import score

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from scalellm_trt.economics import Price


def quotes_of(gpu: str, quotes: Mapping[str, Price], typed: Mapping[str, Price]) -> Sequence[Price]:
    """Return the price that somebody stated for a card, else every quote of it."""
    return [typed[gpu]] if gpu in typed else [price for price in quotes.values() if price.gpu == gpu]


def table(quotes: Mapping[str, Price], typed: Mapping[str, Price]) -> Table:
    """Return the latency that each published score means at each price, and the score made of both again."""
    rows = []
    for row in published.TABLE:
        for price in quotes_of(row.gpu, quotes, typed):
            latency_s = row.latency_s(price)
            again = score(row.num_services, latency_s, price.usd_per_hour)
            cells = (f"{row.value:.6g}", f"{row.latency_price:.6f}", f"{price.usd_per_hour:g}", f"{latency_s:.3f}")
            rows.append((row.name, f"{row.num_services}", *cells, f"{again:.6g}", price.place))
    return Table(
        title="ScaleLLM's scores",
        columns=("row", "services", "score", "s × USD/h", "USD/h", "implied s", "score again", "price is of"),
        rows=tuple(rows),
        first_number=1,
        note=f"{published.SOURCE}. s × USD/h = services / score; implied s = that / USD/h.",
    )


def sentences(typed: Mapping[str, Price]) -> tuple[str, ...]:
    """Return what follows for certain, and at stated prices; then what cannot be derived."""
    left_open = "; ".join(published.NOT_DERIVABLE)
    return (*published.findings(typed), f"Not derivable: {left_open}.")


def as_json(quotes: Mapping[str, Price], typed: Mapping[str, Price]) -> dict[str, object]:
    """Return the same for programs."""
    rows = [
        {
            "name": row.name,
            "gpu": row.gpu,
            "num_services": row.num_services,
            "score": row.value,
            "latency_price": row.latency_price,
            "implied": [
                {
                    "usd_per_hour": price.usd_per_hour,
                    "latency_s": row.latency_s(price),
                    "provider": price.provider,
                    "date": price.origin.date.isoformat(),
                    "source": price.origin.source,
                }
                for price in quotes_of(row.gpu, quotes, typed)
            ],
        }
        for row in published.TABLE
    ]
    derived = list(published.findings(typed))
    return {"source": published.SOURCE, "rows": rows, "derived": derived, "not_derivable": published.NOT_DERIVABLE}

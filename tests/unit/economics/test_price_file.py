from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from scalellm_trt.economics import price_file, price_of, prices
from scalellm_trt.errors import RecipeError

if TYPE_CHECKING:
    from pathlib import Path

GOOD = """\
prices:
  cheap:
    gpu: rtx4090
    provider: a friend
    usd_per_hour: 0.25
    date: '2026-11-25'
    source: a bill
  mine:
    gpu: rtx3090
    provider: at home
    owned: {purchase_usd: 2628, lifetime_years: 3, watts: 500, usd_per_kwh: 0.2, utilization: 0.5}
    default: true
    date: '2026-11-25'
    source: an invoice
"""


def problems(tmp_path: Path, text: str) -> list[str]:
    path = tmp_path / "prices.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError) as caught:
        price_file.load(path)
    return [str(problem).replace(str(path), "FILE") for problem in caught.value.problems]


def test_own_prices_replace_those_of_their_cards(tmp_path: Path) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text(GOOD)
    found = price_file.load(path)
    mine = price_of("rtx3090", found)
    assert mine is not None
    assert mine.owned is not None
    assert mine.usd_per_hour == pytest.approx(0.3)
    assert mine.label == "0.3 USD/h, at home, 2026-11-25, an invoice"
    cheap = price_of("rtx4090", found)
    assert cheap is not None
    assert (cheap.usd_per_hour, cheap.name) == (0.25, "cheap")
    assert price_of("t4", found) == price_of("t4")
    assert len([price for price in found.values() if price.gpu == "rtx4090"]) == 1
    assert len(found) < len(prices()) + 2


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("gpu: rtx4090", "gpu: rtx409", "FILE:3: prices.cheap.gpu: 'rtx409' is no known card\n  Nearest: rtx4090. "),
        ("usd_per_hour: 0.25", "usd_per_hour: -1", "FILE:5: prices.cheap.usd_per_hour: found -1, expected a number"),
        ("usd_per_hour: 0.25", "usd_per_day: 6", "FILE:5: prices.cheap.usd_per_day: is not a key of prices.cheap"),
        ("    usd_per_hour: 0.25\n", "", "FILE:2: prices.cheap: has neither usd_per_hour nor owned"),
        ("    default: true", "    usd_per_hour: 1.0", "FILE:8: prices.mine: has both usd_per_hour and owned"),
        ("date: '2026-11-25'", "date: '2026-13-25'", "FILE:6: prices.cheap.date: '2026-13-25' is no day"),
        ("date: '2026-11-25'", "date: 2026-11-25", "FILE:6: prices.cheap.date: '2026-11-25' without quotes"),
        ("date: '2026-11-25'", "date: 'today'", "FILE:6: prices.cheap.date: found 'today', expected a day in quotes"),
        ("utilization: 0.5", "utilization: 50", "FILE:11: prices.mine.owned.utilization: is more than 1"),
        ("watts: 500", "watts: 500, idle_watts: 600", "FILE:11: prices.mine.owned.idle_watts: is more than watts"),
        ("watts: 500", "watt: 500", "FILE:11: prices.mine.owned.watts: is missing"),
        ("    source: a bill\n", "", "FILE:2: prices.cheap.source: is missing"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_by_its_line_and_key(tmp_path: Path, old: str, new: str, expected: str) -> None:
    assert old in GOOD
    assert any(each.startswith(expected) for each in problems(tmp_path, GOOD.replace(old, new, 1)))


def test_all_mistakes_are_told_at_once_and_a_file_that_is_none_shows_a_row(tmp_path: Path) -> None:
    assert len(problems(tmp_path, GOOD.replace("rtx4090", "a").replace("rtx3090", "b"))) == 2
    (found,) = problems(tmp_path, "- 1\n")
    assert "my-card: {gpu: rtx4090" in found
    with pytest.raises(RecipeError, match="my-card"):
        price_file.load(tmp_path / "absent.yaml")

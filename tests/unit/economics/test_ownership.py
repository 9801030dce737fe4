from __future__ import annotations

import dataclasses

import pytest

from scalellm_trt.economics import Ownership

CARD = Ownership(
    purchase_usd=2628, lifetime_years=3, watts=500, usd_per_kwh=0.2, utilization=0.5, idle_watts=100
)  # 2628 USD over 3 x 8760 h: 0.10 USD/h


def test_an_hour_pays_for_the_purchase_and_the_power_of_idle_hours_too() -> None:
    assert CARD.fixed_usd_per_day == pytest.approx(2.4 + 0.1 * 24 * 0.2)
    assert CARD.usd_per_busy_hour == pytest.approx(0.4 * 0.2)
    # Each busy hour carries two hours of purchase (0.20) and of idle power (0.04), and its own power (0.08).
    assert CARD.usd_per_hour == pytest.approx(0.32)


def test_a_card_that_never_rests_costs_its_purchase_and_its_power() -> None:
    busy = dataclasses.replace(CARD, utilization=1.0)
    assert busy.usd_per_hour == pytest.approx(0.1 + 0.1)


def test_use_makes_an_hour_cheaper() -> None:
    hours = [dataclasses.replace(CARD, utilization=share).usd_per_hour for share in (0.1, 0.3, 0.6, 1.0)]
    assert hours == sorted(hours, reverse=True)

from __future__ import annotations

import dataclasses
import datetime

import pytest

from scalellm_trt import facts
from scalellm_trt.economics import (
    Score,
    price_of,
    prices,
    published,
    score,
    typed_price,
    usd_per_million_tokens,
)

# Latency x price that each row means, in dollar seconds per hour.
PRODUCTS = {
    "A100, vLLM": 0.559175,
    "A100, 1 service": 0.293305,
    "A100, 2 services": 0.295978,
    "A100, 3 services": 0.461854,
    "L4": 0.151966,
    "T4": 0.876450,
    "RTX 4090": 0.049301,
}
PUBLISHED = {row.name: row for row in published.TABLE}


def product(row: str) -> float:
    return PUBLISHED[row].latency_price


@pytest.mark.parametrize("row", PUBLISHED)
def test_a_published_score_means_its_published_product(row: str) -> None:
    assert product(row) == pytest.approx(PRODUCTS[row], abs=5e-7)


@pytest.mark.parametrize(
    ("row", "faster"), [("A100, 1 service", 1.9065), ("A100, 2 services", 1.8892), ("A100, 3 services", 1.2107)]
)
def test_rows_of_one_price_show_how_much_faster_they_are(row: str, faster: float) -> None:
    assert product("A100, vLLM") / product(row) == pytest.approx(faster, abs=5e-5)


def test_more_services_on_a_card_were_measured_almost_as_fast_then_slower() -> None:
    assert product("A100, 2 services") / product("A100, 1 service") == pytest.approx(1.009, abs=5e-4)
    assert product("A100, 3 services") / product("A100, 1 service") == pytest.approx(1.575, abs=5e-4)


def test_the_best_row_is_eleven_times_the_baseline_not_twenty() -> None:
    assert PUBLISHED["RTX 4090"].value / PUBLISHED["A100, vLLM"].value == pytest.approx(11.34, abs=0.005)


@pytest.mark.parametrize(
    ("row", "usd_per_hour", "latency_s"),
    [
        ("A100, vLLM", 4.10, 0.136),
        ("A100, 3 services", 1.29, 0.358),
        ("L4", 0.7068, 0.215),
        ("T4", 0.35, 2.504),
        ("T4", 1.204, 0.728),
        ("RTX 4090", 0.74, 0.067),
    ],
)
def test_a_price_turns_a_product_into_a_latency_and_back_into_the_score(
    row: str, usd_per_hour: float, latency_s: float
) -> None:
    found = product(row) / usd_per_hour
    assert found == pytest.approx(latency_s, abs=5e-4)
    assert score(PUBLISHED[row].num_services, found, usd_per_hour) == pytest.approx(PUBLISHED[row].value)


def test_a_t4_is_under_a_second_only_above_88_cents() -> None:
    assert product("T4") / 0.877 < 1.0 < product("T4") / 0.876


def test_a_score_counts_only_within_the_threshold() -> None:
    quote = price_of("rtx4090")
    assert quote is not None
    within = Score(num_services=2, latency_s=0.5, prompt_tokens=512, num_cards=1, price=quote, threshold_s=1.0)
    assert within.value == pytest.approx(2 / (0.5 * 0.34))
    assert within.latency_price == pytest.approx(0.5 * 0.34)
    assert dataclasses.replace(within, threshold_s=0.4).value == 0.0
    assert dataclasses.replace(within, threshold_s=None).value == within.value
    assert dataclasses.replace(within, num_cards=8).value == pytest.approx(within.value / 8)


def test_every_card_has_exactly_one_price_that_plans_take() -> None:
    for name, row in facts.hardware().items():
        defaults = [price for price in prices().values() if price.gpu == name and price.is_default]
        assert len(defaults) == (1 if row.kind == "gpu" else 0), name
    assert {price.gpu for price in prices().values()} <= set(facts.hardware())
    assert price_of("cpu") is None


def test_a_million_tokens_cost_what_the_hours_cost_that_they_take() -> None:
    assert usd_per_million_tokens(3.6, 1000) == pytest.approx(1.0)


def test_what_the_published_table_says_for_certain_and_at_prices() -> None:
    certain = published.findings({})
    assert "per number of services, 1: 1.9065x, 2: 1.8892x, 3: 1.2107x." in certain[0]
    assert "The second service costs +0.9% latency, the third +57.5%" in certain[1]
    assert "11.34 times" in certain[2]
    assert "0.1658 of the A100's" in certain[3]
    assert "above 0.876 USD/h" in certain[4]
    quotes = {"t4": prices()["t4-aws-4xlarge"], "a100-80g": prices()["a100-80g-aws"]}
    at_prices = published.findings({**quotes, "rtx4090": typed_price("rtx4090", 0.69, datetime.date(2023, 12, 1))})
    assert at_prices[:5] == certain
    assert at_prices[5] == "At 1.204 USD/h it takes 0.728 s: the claim holds at that price."
    assert at_prices[6] == "At these prices the RTX 4090 is 1.91 times as fast as vLLM on the A100."
    cheap = published.findings({"t4": prices()["t4-aws"]})
    assert cheap[5] == "At 0.526 USD/h it takes 1.666 s: the claim does not hold at that price."


def test_a_row_means_a_latency_at_a_price() -> None:
    assert published.A100[0].latency_s(prices()["a100-80g-aws"]) == pytest.approx(0.0715, abs=5e-5)


def test_a_time_per_token_counts_only_within_its_limit_and_only_where_it_is_known() -> None:
    quote = price_of("rtx4090")
    assert quote is not None
    free = Score(num_services=1, latency_s=0.5, prompt_tokens=512, num_cards=1, price=quote, threshold_s=1.0)
    assert (free.limits, free.tpot_fault, free.meets_threshold) == (("TTFT 1 s",), None, True)
    kept = dataclasses.replace(free, tpot_ms=25.0, tpot_limit_ms=25.0)
    assert kept.limits == ("TTFT 1 s", "TPOT 25 ms")
    assert kept.tpot_fault is None
    assert kept.value == pytest.approx(1 / (0.5 * 0.34))
    slow = dataclasses.replace(kept, tpot_ms=25.01)
    assert (slow.tpot_fault, slow.is_first_token_late, slow.value) == ("TPOT above 25 ms", False, 0.0)
    unknown = dataclasses.replace(kept, tpot_ms=None)
    assert (unknown.tpot_fault, unknown.meets_threshold, unknown.value) == ("TPOT not known", False, 0.0)
    late = dataclasses.replace(kept, threshold_s=0.4)
    assert (late.tpot_fault, late.is_first_token_late, late.value) == (None, True, 0.0)

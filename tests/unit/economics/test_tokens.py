from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalellm_trt.economics import (
    ApiPrice,
    Ownership,
    TokenRate,
    break_even,
    input_share_by_time,
    token_cost,
    usd_per_million_tokens,
)

# 3.6 USD/h are a thousandth of a dollar a second.
RATE = TokenRate(input_tokens_per_s=3000, output_tokens_per_s=1000, input_share=0.25, apportioned="by time")
OWNED = Ownership(purchase_usd=2628, lifetime_years=3, watts=500, usd_per_kwh=0.2, utilization=0.5, idle_watts=0)


def test_one_bill_is_split_between_prompts_and_answers() -> None:
    found = token_cost(3.6, RATE)
    assert found is not None
    assert found.input_usd == pytest.approx(0.25 * 0.001 / 3000 * 1e6)
    assert found.output_usd == pytest.approx(0.75)
    assert found.blended_usd == pytest.approx(0.25)
    assert found.all_on_output_usd == pytest.approx(1.0)


@given(st.floats(0.01, 100), st.floats(0, 1), st.floats(1, 1e6), st.floats(1, 1e6))
def test_the_parts_of_a_bill_add_up_to_it(usd_per_hour: float, share: float, read: float, made: float) -> None:
    found = token_cost(
        usd_per_hour,
        TokenRate(input_tokens_per_s=read, output_tokens_per_s=made, input_share=share, apportioned=""),
    )
    assert found is not None
    assert found.input_usd is not None
    assert found.output_usd is not None
    assert 3600 * (read * found.input_usd + made * found.output_usd) / 1e6 == pytest.approx(usd_per_hour)
    assert 3600 * (read + made) * found.blended_usd / 1e6 == pytest.approx(usd_per_hour)


def test_what_nothing_tells_is_none() -> None:
    silent = TokenRate(input_tokens_per_s=0, output_tokens_per_s=0, input_share=0.5, apportioned="")
    assert token_cost(1.0, silent) is None
    unsplit = token_cost(
        3.6, TokenRate(input_tokens_per_s=0, output_tokens_per_s=1000, input_share=None, apportioned="")
    )
    assert unsplit is not None
    assert (unsplit.input_usd, unsplit.output_usd) == (None, None)
    assert unsplit.blended_usd == unsplit.all_on_output_usd == pytest.approx(1.0)


def test_the_share_of_prompts_is_that_of_the_time_before_the_first_token() -> None:
    assert input_share_by_time(2.0, 8.0) == 0.25
    assert input_share_by_time(0.0, 0.0) is None


def test_a_rented_card_is_paid_all_day_whatever_it_does() -> None:
    # The API takes 3600 x (3000 x 0.5 + 1000 x 1.5) / 1e6 = 10.8 USD for an hour of this load.
    found = break_even(3.6, RATE, ApiPrice(input_usd=0.5, output_usd=1.5))
    assert found is not None
    assert found.api_usd_per_hour == pytest.approx(10.8)
    assert found.hours_per_day == pytest.approx(8.0)
    assert found.output_tokens_per_s == pytest.approx(1000 / 3)
    assert found.share_of_load == pytest.approx(1 / 3)
    assert found.is_reached


def test_a_card_too_dear_for_a_day_is_told_by_its_hours() -> None:
    found = break_even(36, RATE, ApiPrice(input_usd=0.5, output_usd=1.5))
    assert found is not None
    assert found.hours_per_day == pytest.approx(80)
    assert not found.is_reached


def test_an_owned_card_pays_its_power_by_the_hour_and_the_rest_by_the_day() -> None:
    api = ApiPrice(input_usd=0.05, output_usd=0.15)
    found = break_even(OWNED.usd_per_hour, RATE, api, OWNED)
    assert found is not None
    assert found.hours_per_day == pytest.approx(2.4 / (1.08 - 0.1))
    assert break_even(OWNED.usd_per_hour, RATE, ApiPrice(input_usd=0, output_usd=0.02), OWNED) is None


def test_a_million_tokens_cost_what_the_hours_cost_that_they_take() -> None:
    assert usd_per_million_tokens(3.6, 1000) == pytest.approx(1.0)

"""What tokens cost at a load, and from which use on it is cheaper than buying them from an API."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scalellm_trt.economics.ownership import Ownership

MILLION = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRate:
    """What a load makes of an hour.

    Attributes:
        input_tokens_per_s: of prompts, all cards together.
        output_tokens_per_s: of answers.
        input_share: of the cost that is put down to prompts, 0 to 1; None where nothing tells it.
        apportioned: how `input_share` was found, for a reader.
    """

    input_tokens_per_s: float
    output_tokens_per_s: float
    input_share: float | None
    apportioned: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenCost:
    """USD for a million tokens. One bill pays for both kinds, so how it is split is a convention that is printed.

    Attributes:
        input_usd: None where no prompts were read, or nothing tells their share.
        output_usd: likewise of answers.
        blended_usd: for any token, in and out alike.
        all_on_output_usd: for tokens of answers when prompts are free.
    """

    input_usd: float | None
    output_usd: float | None
    blended_usd: float
    all_on_output_usd: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiPrice:
    """What an API takes for a million tokens, in USD."""

    input_usd: float
    output_usd: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakEven:
    """From where on one's own card is cheaper than an API, for prompts and answers in the measured proportion.

    Attributes:
        api_usd_per_hour: what the API takes for what the card does in an hour of full load.
        hours_per_day: of full load from which on it is cheaper; above 24 it never is.
        output_tokens_per_s: the same as a mean over the whole day.
        share_of_load: the same as a share of the measured throughput.
    """

    api_usd_per_hour: float
    hours_per_day: float
    output_tokens_per_s: float
    share_of_load: float

    @property
    def is_reached(self) -> bool:
        """Whether a day has enough hours."""
        return self.hours_per_day <= 24


def usd_per_million_tokens(usd_per_hour: float, tokens_per_s: float) -> float:
    """Return what a million tokens cost at a constant rate."""
    return usd_per_hour / 3600 / tokens_per_s * MILLION


def input_share_by_time(first_token_s: float, whole_s: float) -> float | None:
    """Return the share of a bill that prompts cause: that of the time of requests which passes before the first token.

    Our convention: it needs nothing but what a client sees. Waiting counts as reading prompts.

    Formula: sum of ttft / sum of e2e_latency over good requests
    """
    return min(1.0, first_token_s / whole_s) if whole_s > 0 else None


def token_cost(usd_per_hour: float, rate: TokenRate) -> TokenCost | None:
    """Return what tokens cost when all of `rate` is used; None where none were made.

    Formula: input = usd_per_hour * share / (3600 * input_tokens_per_s) * 1e6, USD; output the same with 1 - share
    """
    total = rate.input_tokens_per_s + rate.output_tokens_per_s
    if total <= 0:
        return None
    share = rate.input_share
    return TokenCost(
        input_usd=None if share is None else _cost(usd_per_hour * share, rate.input_tokens_per_s),
        output_usd=None if share is None else _cost(usd_per_hour * (1 - share), rate.output_tokens_per_s),
        blended_usd=usd_per_million_tokens(usd_per_hour, total),
        all_on_output_usd=_cost(usd_per_hour, rate.output_tokens_per_s),
    )


def break_even(usd_per_hour: float, rate: TokenRate, api: ApiPrice, owned: Ownership | None = None) -> BreakEven | None:
    """Return the use from which on a card is cheaper than an API; None where it never is, at any use.

    A rented card is paid for 24 hours a day. An owned one costs `fixed_usd_per_day`, and `usd_per_busy_hour` on top
    for each hour of load; where the API takes less than that, owning it never pays.

    Formula: hours = fixed cost of a day / (API's price of an hour's tokens - cost of a busy hour), h/day
    """
    in_an_hour = rate.input_tokens_per_s * api.input_usd + rate.output_tokens_per_s * api.output_usd
    api_usd_per_hour = in_an_hour * 3600 / MILLION
    fixed, busy = (24 * usd_per_hour, 0.0) if owned is None else (owned.fixed_usd_per_day, owned.usd_per_busy_hour)
    if api_usd_per_hour <= busy:
        return None
    hours = fixed / (api_usd_per_hour - busy)
    return BreakEven(
        api_usd_per_hour=api_usd_per_hour,
        hours_per_day=hours,
        output_tokens_per_s=rate.output_tokens_per_s * hours / 24,
        share_of_load=hours / 24,
    )


def _cost(usd_per_hour: float, tokens_per_s: float) -> float | None:
    return usd_per_million_tokens(usd_per_hour, tokens_per_s) if tokens_per_s > 0 else None

"""One service on one card at one load, with its score and the cost of its tokens; and which of several is cheapest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from scalellm_trt.economics import tokens

if TYPE_CHECKING:
    from collections.abc import Iterable

    from scalellm_trt.economics.score import Score
    from scalellm_trt.economics.tokens import ApiPrice, BreakEven, TokenCost, TokenRate

Basis = Literal["measured", "estimate", "typed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A row of a score table.

    Attributes:
        source: the run, recipe or words that it comes from.
        basis: measured by a run, an estimate of a plan, or typed in.
        load: how many requests at once, over all services.
        latency_name: which latency the score takes: percentile and metric.
        rate: tokens a second at that load; None where nobody said.
        tpot_name: which time per output token is judged, likewise.
    """

    source: str
    basis: Basis
    load: str
    latency_name: str
    score: Score
    rate: TokenRate | None
    tpot_name: str = "TPOT"

    @property
    def gpu(self) -> str:
        """The card that the price is of."""
        return self.score.price.gpu

    @property
    def cost(self) -> TokenCost | None:
        """What tokens cost at this load; None where their rate is not known."""
        return None if self.rate is None else tokens.token_cost(self.score.usd_per_hour, self.rate)

    def break_even(self, api: ApiPrice) -> BreakEven | None:
        """Return from which use on this is cheaper than an API; None where it never is or the rate is not known.

        An owned card counts by its fixed and its running cost; only where one card does it all.
        """
        if self.rate is None:
            return None
        owned = self.score.price.owned if self.score.num_cards == 1 else None
        return tokens.break_even(self.score.usd_per_hour, self.rate, api, owned)


def cheapest_to_hold(standings: Iterable[Standing]) -> Standing | None:
    """Return the one within its limits that costs least an hour, of equals the one with the highest score."""
    within = [each for each in standings if each.score.meets_threshold]
    return min(within, key=lambda each: (each.score.usd_per_hour, -each.score.value), default=None)


def cheapest_by_token(standings: Iterable[Standing]) -> Standing | None:
    """Return the one within its limits whose tokens, in and out alike, cost least; None where no cost is known."""
    costs = [(each.cost, each) for each in standings if each.score.meets_threshold]
    known = [(cost.blended_usd, each) for cost, each in costs if cost is not None]
    return min(known, key=lambda pair: pair[0])[1] if known else None

"""Rows of a run and prices in; scores, costs of tokens and break-even out, as values and as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scalellm_trt.bench import metrics
from scalellm_trt.bench.tables import NOT_DEFINED, Table, figure
from scalellm_trt.economics import Score, TokenRate, input_share_by_time, price_of
from scalellm_trt.economics.standing import Standing, cheapest_by_token, cheapest_to_hold

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from scalellm_trt.bench.run import Run
    from scalellm_trt.bench.summary import Summary
    from scalellm_trt.economics import ApiPrice, Price

BY_TIME = (
    "input share of the bill = sum of ttft / sum of e2e_latency over all finished requests (our convention: time "
    "before the first token, waiting included)"
)
NOT_SPLIT = "answers did not stream, so nothing tells the input share; see the blended cost"
SCORE_FORMULA = "score = services / (latency × USD/h of all cards), in 1/(s·USD/h); 0 beyond the threshold"
COST_FORMULA = (
    "USD per million input tokens = USD/h × input share / (3600 × input tokens/s) × 10⁶; output: the same with the "
    "rest of the bill; blended: all of it over input + output"
)


def standing(
    described: Run,
    summary: Summary,
    price: Price,
    *,
    source: str,
    num_services: int = 1,
    num_cards: int = 1,
    percent: int = 50,
    threshold_s: float | None = None,
    tpot_limit_ms: float | None = None,
) -> Standing | None:
    """Return how a row of a run stands at a price; None where it has no time to first token, or timed out.

    Args:
        described: the run.
        summary: the row.
        price: of one card.
        source: what a reader calls the run; the target's name follows, or stands alone for "".
        num_services: loaded like this one at the same time, on the same cards: the rates are taken times it.
        num_cards: that they take together.
        percent: which percentile of TTFT is the latency, and of TPOT is judged.
        threshold_s: beyond which a latency counts for nothing.
        tpot_limit_ms: the same of TPOT; where it is not known (answers of one token) the row counts for nothing either.
    """
    first = summary.distributions.get(metrics.TTFT.name)
    between = summary.distributions.get(metrics.TPOT.name)
    if summary.outcome != "measured" or first is None:
        return None
    names = [source, "" if source and len(described.targets) == 1 else described.targets[summary.target].name]
    return Standing(
        source=": ".join(name for name in names if name),
        basis="measured",
        load=f"{summary.load.label} at once" if summary.load.mode == "closed" else summary.load.label,
        latency_name=f"p{percent} TTFT",
        score=Score(
            num_services=num_services,
            latency_s=first.percentiles[percent].value / 1000,
            prompt_tokens=round(summary.distributions[metrics.ISL.name].p50.value),
            num_cards=num_cards,
            price=price,
            threshold_s=threshold_s,
            tpot_ms=None if between is None else between.percentiles[percent].value,
            tpot_limit_ms=tpot_limit_ms,
        ),
        rate=_rate(summary, num_services),
        tpot_name=f"p{percent} TPOT",
    )


def standings(
    described: Run, summaries: Sequence[Summary], quotes: Mapping[str, Price], slo: metrics.Slo | None = None
) -> tuple[Standing, ...]:
    """Return those of all targets whose hardware is known and has a price, their medians judged by an SLO.

    Its limits of TTFT and TPOT are judged; one of the whole request is goodput's alone.
    """
    limits = slo or metrics.Slo()
    threshold_s = None if limits.ttft_ms is None else limits.ttft_ms / 1000
    found = []
    for summary in summaries:
        hardware = described.targets[summary.target].hardware
        price = None if hardware is None else price_of(hardware, quotes)
        if price is not None:
            found.append(
                standing(described, summary, price, source="", threshold_s=threshold_s, tpot_limit_ms=limits.tpot_ms)
            )
    return tuple(each for each in found if each is not None)


def score_table(rows: Sequence[Standing]) -> Table:
    """Return scores with everything that they mean nothing without; TPOT where it is judged."""
    is_judged = _is_tpot_judged(rows)
    between = ("TPOT, ms",) if is_judged else ()
    columns = ("what", "card", "basis", "load", "services", "latency", "s", *between)
    return Table(
        title="Economic score",
        columns=(*columns, "prompt", "USD/h", "s × USD/h", "score"),
        rows=tuple(_score_row(each, is_tpot_judged=is_judged) for each in rows),
        first_number=6,
        note=f"{SCORE_FORMULA}. {_judged(rows) if is_judged else ''}{_prices(rows)}",
    )


def cost_table(rows: Sequence[Standing]) -> Table:
    """Return what a million tokens cost."""
    return Table(
        title="USD per million tokens, all of the card used at this load",
        columns=("what", "card", "basis", "load", "input tokens/s", "output tokens/s", "input", "output", "blended"),
        rows=tuple(_cost_row(each) for each in rows if each.rate is not None),
        first_number=4,
        note=f"{COST_FORMULA}. {'; '.join(dict.fromkeys(each.rate.apportioned for each in rows if each.rate))}.",
    )


def verdicts(rows: Sequence[Standing], api: ApiPrice | None) -> tuple[str, ...]:
    """Return in sentences: the cheapest card within the limits, and from where on each is cheaper than an API."""
    found = []
    hold, token = cheapest_to_hold(rows), cheapest_by_token(rows)
    within = _within(rows)
    if hold is not None and len(rows) > 1:
        found.append(f"Cheapest by the hour{within}: {_named(hold)} {hold.score.usd_per_hour:.3g} USD/h.")
    if token is not None and token.cost is not None and len(rows) > 1:
        found.append(
            f"Cheapest by the token{within}: {_named(token)} {figure(token.cost.blended_usd)} USD per million."
        )
    if hold is None and rows:
        found.append(f"None is{within}.")
    if api is not None:
        found += [_break_even(each, api) for each in _best_loads(rows)]
    return tuple(found)


def _within(rows: Sequence[Standing]) -> str:
    """Return by which limits rows were judged, to go on a sentence with; nothing where by none."""
    scores = {each.score.limits: each.score for each in rows}
    if len(scores) > 1:
        return " within its own limits"
    ((limits, score),) = scores.items() if scores else (((), None),)
    if score is not None and score.threshold_s is not None and score.tpot_limit_ms is None:
        return f" within {score.threshold_s:g} s"
    return f" within {' and '.join(limits)}" if limits else ""


def _is_tpot_judged(rows: Sequence[Standing]) -> bool:
    return any(each.score.tpot_limit_ms is not None for each in rows)


def _judged(rows: Sequence[Standing]) -> str:
    """Return which limits were judged, by row where they differ, and what a time per token is of."""
    groups: dict[tuple[str, ...], dict[str, None]] = {}
    for each in rows:
        groups.setdefault(each.score.limits, {})[f"{each.source} on {each.gpu}"] = None
    of_whom = (f"{', '.join(limits) or 'none'} ({', '.join(names)})" for limits, names in groups.items())
    said = ", ".join(next(iter(groups))) if len(groups) == 1 else "; ".join(of_whom)
    names = ", ".join(dict.fromkeys(each.tpot_name for each in rows))
    return f"Limits judged: {said}; 0 also where TPOT is not known. Time per output token: {names}. "


def _best_loads(rows: Sequence[Standing]) -> list[Standing]:
    """Return of each source and card the load whose tokens cost least: the most that an hour makes."""
    groups: dict[tuple[str, str], list[Standing]] = {}
    for each in rows:
        groups.setdefault((each.source, each.gpu), []).append(each)
    return [best for group in groups.values() if (best := cheapest_by_token(group)) is not None]


def _rate(summary: Summary, num_services: int) -> TokenRate:
    latency = summary.distributions[metrics.E2E.name]
    first = summary.distributions.get(metrics.TTFT.name)
    share = None
    if first is not None:
        share = input_share_by_time(first.mean * first.count, latency.mean * latency.count)
    return TokenRate(
        input_tokens_per_s=num_services * summary.input_token_throughput.value,
        output_tokens_per_s=num_services * summary.output_token_throughput.value,
        input_share=share,
        apportioned=NOT_SPLIT if share is None else BY_TIME,
    )


def _score_row(each: Standing, *, is_tpot_judged: bool) -> tuple[str, ...]:
    score = each.score
    late = f"above {score.threshold_s:g} s" if score.is_first_token_late else None
    faults = "; ".join(fault for fault in (late, score.tpot_fault) if fault is not None)
    beyond = f" ({faults})" if faults else ""
    between = (NOT_DEFINED if score.tpot_ms is None else f"{score.tpot_ms:.4g}",) if is_tpot_judged else ()
    cards = "" if score.num_cards == 1 else f"{score.num_cards} × "
    return (
        each.source,
        f"{cards}{each.gpu}",
        each.basis,
        each.load,
        f"{score.num_services}",
        each.latency_name,
        f"{score.latency_s:.4g}",
        *between,
        f"{score.prompt_tokens}" if score.prompt_tokens else "not said",
        f"{score.usd_per_hour:.4g}",
        f"{score.latency_price:.4g}",
        f"{score.value:.4g}{beyond}",
    )


def _cost_row(each: Standing) -> tuple[str, ...]:
    assert each.rate is not None, "chosen by it"
    cost = each.cost
    costs = (None, None, None) if cost is None else (cost.input_usd, cost.output_usd, cost.blended_usd)
    rates = (each.rate.input_tokens_per_s, each.rate.output_tokens_per_s)
    shown = (NOT_DEFINED if value is None else figure(value) for value in costs)
    return (each.source, each.gpu, each.basis, each.load, *(figure(rate) for rate in rates), *shown)


def _prices(rows: Sequence[Standing]) -> str:
    quotes = dict.fromkeys(each.score.price for each in rows)
    return "Prices: " + "; ".join(f"{price.gpu} {price.label}" for price in quotes) + "."


def _break_even(each: Standing, api: ApiPrice) -> str:
    price = f"an API at {api.input_usd:g} / {api.output_usd:g} USD per million input / output tokens"
    found = each.break_even(api)
    if found is None or not found.is_reached:
        needs = "" if found is None else f": it would need {found.hours_per_day:,.0f} hours a day at this load"
        return f"{_named(each)} is never cheaper than {price}{needs}."
    return (
        f"{_named(each)} is cheaper than {price} from {found.hours_per_day:.1f} hours a day at this load on, or "
        f"{figure(found.output_tokens_per_s)} output tokens/s as a mean over the day ({found.share_of_load:.0%} of it)."
    )


def _named(each: Standing) -> str:
    return f"{each.source} on {each.gpu}, {each.load} ({each.basis}),"

"""Runs, recipes and typed numbers in, rows of a score table out; what gives no row says why."""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from scalellm_trt.errors import Problem, RecipeError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from scalellm_trt.economics import Price
    from scalellm_trt.economics.standing import Standing

NOT_SAID = "card not said"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the command line asks for.

    Attributes:
        typed: prices by card that were typed in; under "" the one for any card.
        cards: for recipes: other classes of hardware; empty is the recipe's own.
        load: only this concurrency of runs.
    """

    quotes: Mapping[str, Price]
    typed: Mapping[str, Price]
    cards: tuple[str, ...]
    num_services: int | None
    num_cards: int
    threshold_s: float | None
    tpot_limit_ms: float | None
    percent: int
    load: int | None
    prompt: int
    max_tokens: int

    def price(self, gpu: str | None) -> Price | None:
        """Return the price of a card: typed, else quoted."""
        import dataclasses

        from scalellm_trt.economics import price_of

        if gpu is not None and gpu in self.typed:
            return self.typed[gpu]
        if "" in self.typed:
            return dataclasses.replace(self.typed[""], gpu=gpu or NOT_SAID)
        return None if gpu is None else price_of(gpu, self.quotes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """A source that gives no row, and why."""

    source: str
    reason: str


def typed_prices(texts: Sequence[str] | None) -> Mapping[str, Price]:
    """Return prices from `USD` and `CARD=USD`.

    Raises:
        RecipeError: one is none.
    """
    from scalellm_trt import facts
    from scalellm_trt.economics import typed_price

    found = {}
    today = datetime.datetime.now(tz=datetime.timezone.utc).date()
    for text in texts or ():
        card, _, usd = text.rpartition("=")
        if not re.fullmatch(r"[0-9]*\.?[0-9]+", usd) or float(usd) <= 0:
            hint = "Write USD per hour and card, such as 0.34, or rtx4090=0.34."
            raise RecipeError([Problem(key="--price", message=f"{text!r} is no price", hint=hint)])
        if card and card not in facts.hardware():
            near = facts.nearest(card, facts.hardware())
            hint = (f"Nearest: {near}. " if near else "") + f"Known: {', '.join(facts.hardware())}."
            raise RecipeError([Problem(key="--price", message=f"{card!r} is no known card", hint=hint)])
        found[card] = typed_price(card or NOT_SAID, float(usd), today)
    return found


def rows_of(source: Path, wanted: Wanted, hardware: Sequence[str] | None) -> Iterator[Standing | Missing]:
    """Yield the rows of a run's directory or of a recipe.

    Raises:
        ArtefactError, RecipeError, UnsupportedError: it is neither, or a wrong one.
    """
    if source.is_dir():
        yield from _of_run(source, wanted, hardware)
    else:
        yield from _of_recipe(source, wanted)


def typed_row(
    latencies_ms: tuple[float, float | None],
    rate: tuple[float | None, float | None],
    prompt: int | None,
    wanted: Wanted,
) -> Standing:
    """Return the row of numbers that were typed in.

    Args:
        latencies_ms: time to first token, and time per output token.
        rate: input and output tokens a second.
        prompt: its tokens.
        wanted: the rest.

    Raises:
        RecipeError: there is no price.
    """
    from scalellm_trt.economics import Score, TokenRate
    from scalellm_trt.economics.standing import Standing

    gpu = wanted.cards[0] if wanted.cards else None
    price = wanted.price(gpu)
    if price is None:
        what = "no price is given" if gpu is None else f"no price of {gpu} is known"
        raise RecipeError([Problem(key="--price", message=what, hint="Write --price USD, or --hardware CARD.")])
    told = TokenRate(
        input_tokens_per_s=rate[0] or 0.0,
        output_tokens_per_s=rate[1] or 0.0,
        input_share=None,
        apportioned="nothing tells the input share of typed numbers; see the blended cost",
    )
    return Standing(
        source="typed",
        basis="typed",
        load="as typed",
        latency_name="as typed",
        score=Score(
            num_services=wanted.num_services or 1,
            latency_s=latencies_ms[0] / 1000,
            prompt_tokens=prompt or 0,
            num_cards=wanted.num_cards,
            price=price,
            threshold_s=wanted.threshold_s,
            tpot_ms=latencies_ms[1],
            tpot_limit_ms=wanted.tpot_limit_ms,
        ),
        rate=None if rate == (None, None) else told,
        tpot_name="as typed",
    )


def _of_run(directory: Path, wanted: Wanted, hardware: Sequence[str] | None) -> Iterator[Standing | Missing]:
    from scalellm_trt.bench import metrics, money, summary
    from scalellm_trt.bench import run as runs
    from scalellm_trt.cli import bench_options

    described, records = runs.read(directory)
    described = bench_options.with_hardware(described, hardware)
    for row in summary.summarize(described, records, metrics.Slo()):
        target = described.targets[row.target]
        name = f"{directory.name}: {target.name} at {row.load.label}"
        price = wanted.price(target.hardware)
        if wanted.load is not None and row.load.concurrency != wanted.load:
            continue
        if price is None:
            yield Missing(
                source=name, reason=f"no price of {target.hardware or 'its card'}: --hardware, --price or --prices"
            )
            continue
        found = money.standing(
            described,
            row,
            price,
            source=directory.name,
            num_services=wanted.num_services or 1,
            num_cards=wanted.num_cards,
            percent=wanted.percent,
            threshold_s=wanted.threshold_s,
            tpot_limit_ms=wanted.tpot_limit_ms,
        )
        yield found or Missing(source=name, reason="no time to first token: it timed out, failed or did not stream")


def _of_recipe(path: Path, wanted: Wanted) -> Iterator[Standing | Missing]:
    from scalellm_trt import pipeline
    from scalellm_trt.plan import outlook
    from scalellm_trt.plan.standing import standing

    workspace = pipeline.Workspace(builds_dir=Path("builds"), repository_dir=Path("triton_repo"))
    for card in wanted.cards or (None,):
        study = pipeline.study(path, workspace, hardware=card, prompt=wanted.prompt, max_tokens=wanted.max_tokens)
        plan, name = study.plan, f"{path.stem} on {study.plan.hardware}"
        if study.refusal is not None:
            yield Missing(source=name, reason="does not fit")
            continue
        price = wanted.price(plan.hardware)
        if price is None:
            yield Missing(source=name, reason=f"no price of {plan.hardware}: --price or --prices")
            continue
        slo = study.recipe.slo
        limit_s = wanted.threshold_s if wanted.threshold_s is not None else slo.ttft_ms and slo.ttft_ms / 1000
        tpot_limit_ms = wanted.tpot_limit_ms if wanted.tpot_limit_ms is not None else slo.tpot_ms
        seen = outlook(plan, prompt=wanted.prompt, max_tokens=wanted.max_tokens)
        found = standing(plan, seen, price, source=path.stem, threshold_s=limit_s, tpot_limit_ms=tpot_limit_ms)
        yield found or Missing(source=name, reason=f"no speed is predicted for {plan.hardware}: measure it")

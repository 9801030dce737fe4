"""`score`: the economic score and the cost of tokens, of a benchmark, a plan, typed numbers, or ScaleLLM's table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scalellm_trt.cli import bench_options as options
from scalellm_trt.errors import ArtefactError, Problem, RecipeError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from scalellm_trt.cli.score_rows import Missing
    from scalellm_trt.economics import ApiPrice, Price
    from scalellm_trt.economics.standing import Standing

PERCENTILES = (50, 90, 95, 99)
SourcesArgument = Annotated[
    list[Path] | None, typer.Argument(help="Directories that `bench` wrote, and recipes (estimates).")
]
PriceOption = Annotated[
    list[str] | None, typer.Option(help="USD per hour of a card: USD, or CARD=USD; may be given several times.")
]
CardOption = Annotated[
    list[str] | None,
    typer.Option(help="The card: CARD, or TARGET=CARD of a run. Of recipes: what if it ran on CARD; `all` of them."),
]
ServicesOption = Annotated[
    int | None, typer.Option(min=1, help="Services loaded together; 1 for runs, a recipe has its own.")
]
CountOption = Annotated[int, typer.Option(min=1, help="Cards that they take together, in runs and typed.")]
ThresholdOption = Annotated[
    float | None, typer.Option(min=0, help="TTFT beyond which the score is 0; a recipe has its slo.ttft_ms.")
]
TpotOption = Annotated[
    float | None,
    typer.Option(
        min=0, help="Time per output token beyond which, or without which, it is 0 too; a recipe has its slo.tpot_ms."
    ),
]
PercentileOption = Annotated[int, typer.Option(help="Of a run's TTFT and TPOT: 50, 90, 95 or 99.")]
LoadOption = Annotated[int | None, typer.Option(min=1, help="Only this concurrency of runs.")]
PromptOption = Annotated[
    int | None, typer.Option(min=1, help="Tokens of the prompt, of recipes (512 without it) and typed.")
]
MaxTokensOption = Annotated[int, typer.Option(min=1, help="Tokens of the answer, of recipes.")]
LatencyOption = Annotated[float | None, typer.Option(min=0.001, help="Typed: time to first token.")]
TokenLatencyOption = Annotated[
    float | None, typer.Option(min=0.001, help="Typed: time per output token after the first.")
]
InputRateOption = Annotated[float | None, typer.Option(min=0, help="Typed: prompt tokens a second.")]
OutputRateOption = Annotated[float | None, typer.Option(min=0, help="Typed: answer tokens a second.")]
PublishedOption = Annotated[bool, typer.Option("--published", help="ScaleLLM's table: which latencies it means.")]
PlotOption = Annotated[Path | None, typer.Option(help="Draw the scores into this SVG file.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(score)


def score(
    sources: SourcesArgument = None,
    price: PriceOption = None,
    prices: options.PricesOption = None,
    hardware: CardOption = None,
    services: ServicesOption = None,
    num_cards: CountOption = 1,
    threshold_ms: ThresholdOption = None,
    tpot_ms: TpotOption = None,
    percentile: PercentileOption = 50,
    load: LoadOption = None,
    prompt: PromptOption = None,
    max_tokens: MaxTokensOption = 256,
    latency_ms: LatencyOption = None,
    token_latency_ms: TokenLatencyOption = None,
    input_tokens_per_s: InputRateOption = None,
    output_tokens_per_s: OutputRateOption = None,
    published: PublishedOption = False,
    api_input: options.ApiInputOption = None,
    api_output: options.ApiOutputOption = None,
    plot: PlotOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what a service is worth: services / (time to first token × USD per hour), and what its tokens cost.

    Runs are measured, recipes are estimates, and each score says which, with its prompt, load, price, date and source.
    """
    from scalellm_trt.cli import score_rows

    _check(percentile, plot)
    _check_typed(latency_ms, token_latency_ms)
    quotes, typed = options.quotes(prices), score_rows.typed_prices(price)
    if published:
        _published(quotes, typed, as_json=as_json)
        return
    wanted = score_rows.Wanted(
        quotes=quotes,
        typed=typed,
        cards=_cards(hardware),
        num_services=services,
        num_cards=num_cards,
        threshold_s=None if threshold_ms is None else threshold_ms / 1000,
        tpot_limit_ms=tpot_ms,
        percent=percentile,
        load=load,
        prompt=prompt or 512,
        max_tokens=max_tokens,
    )
    found = [row for source in sources or () for row in score_rows.rows_of(source, wanted, hardware)]
    if latency_ms is not None:
        rate = (input_tokens_per_s, output_tokens_per_s)
        found.append(score_rows.typed_row((latency_ms, token_latency_ms), rate, prompt, wanted))
    _finish(found, options.api_price(api_input, api_output), plot, as_json=as_json)


def _finish(found: Sequence[Standing | Missing], api: ApiPrice | None, plot: Path | None, *, as_json: bool) -> None:
    from scalellm_trt.cli.score_rows import Missing

    rows = [each for each in found if not isinstance(each, Missing)]
    missing = [each for each in found if isinstance(each, Missing)]
    if not found:
        hint = "Name runs or recipes, or type --latency-ms and --price, or ask for --published."
        raise RecipeError([Problem(message="there is nothing to score", hint=hint)])
    if not rows:
        raise UnsupportedError([Problem(message=f"{each.source}: no score: {each.reason}") for each in missing])
    if as_json:
        _print_json(rows, missing, api)
    else:
        _show(rows, missing, api)
    if plot is not None:
        _plot(rows, plot)


def _show(rows: Sequence[Standing], missing: Sequence[Missing], api: ApiPrice | None) -> None:
    from rich.markup import escape

    from scalellm_trt.bench import money
    from scalellm_trt.cli import tables
    from scalellm_trt.cli.bench_view import show_table

    on = tables.console()
    ordered = sorted(rows, key=lambda each: -each.score.value)
    show_table(money.score_table(ordered), on)
    if any(each.rate is not None for each in ordered):
        show_table(money.cost_table(ordered), on)
    for sentence in money.verdicts(ordered, api):
        on.print(escape(sentence), soft_wrap=True)
    for each in missing:
        on.print(f"[dim]no score[/] {escape(each.source)}: {escape(each.reason)}", soft_wrap=True)
    if any(each.basis == "estimate" for each in ordered):
        on.print("[yellow]estimate[/] = predicted, nobody measured it; `plan` shows the error band.")


def _print_json(rows: Sequence[Standing], missing: Sequence[Missing], api: ApiPrice | None) -> None:
    import json
    from dataclasses import asdict

    from scalellm_trt.bench import money
    from scalellm_trt.bench.report.as_json import standing_json

    body = {
        "scores": [standing_json(each, api) for each in rows],
        "missing": [asdict(each) for each in missing],
        "verdicts": money.verdicts(rows, api),
        "formulas": {"score": money.SCORE_FORMULA, "cost": money.COST_FORMULA},
    }
    print(json.dumps(body, indent=1))


def _published(quotes: Mapping[str, Price], typed: Mapping[str, Price], *, as_json: bool) -> None:
    import json

    from rich.markup import escape

    from scalellm_trt.bench import published_table
    from scalellm_trt.cli import tables
    from scalellm_trt.cli.bench_view import show_table

    if as_json:
        print(json.dumps(published_table.as_json(quotes, typed), indent=1))
        return
    on = tables.console()
    show_table(published_table.table(quotes, typed), on)
    for sentence in published_table.sentences(typed):
        on.print(escape(sentence), soft_wrap=True)


def _plot(rows: Sequence[Standing], path: Path) -> None:
    from scalellm_trt.bench.report import page, pictures

    try:
        path.write_text(
            pictures.scores(rows, style=page.style() + ".chart{background:var(--card)}").svg + "\n", encoding="utf-8"
        )
    except OSError as error:
        message = f"{path} cannot be written: {error.strerror}"
        raise ArtefactError(message, hint="Name another file with --plot.") from error


def _check(percentile: int, plot: Path | None) -> None:
    if percentile not in PERCENTILES:
        hint = f"Allowed: {', '.join(map(str, PERCENTILES))}."
        raise RecipeError([Problem(key="--percentile", message=f"{percentile} is not among them", hint=hint)])
    if plot is not None and plot.suffix != ".svg":
        hint = "Name a file that ends in .svg; browsers, and most programs for pictures, show it."
        raise RecipeError([Problem(key="--plot", message=f"{plot.name!r} is no SVG file", hint=hint)])


def _check_typed(latency_ms: float | None, token_latency_ms: float | None) -> None:
    if token_latency_ms is not None and latency_ms is None:
        message = "a score needs a time to first token too"
        raise RecipeError([Problem(key="--token-latency-ms", message=message, hint="Type --latency-ms as well.")])


def _cards(hardware: Sequence[str] | None) -> tuple[str, ...]:
    """Return the cards that are named, without those of a run's targets."""
    from scalellm_trt import facts

    named = [name for text in hardware or () for name in text.split(",") if "=" not in name]
    if named == ["all"]:
        return tuple(name for name, row in facts.hardware().items() if row.kind == "gpu")
    return tuple(named)

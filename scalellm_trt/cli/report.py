"""`report RUN`: what a benchmark's records say, on the screen and as one HTML file, Markdown or JSON."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scalellm_trt.cli import bench_options as options

if TYPE_CHECKING:
    from scalellm_trt.bench.report.content import Content

FILE_NAME = "report.html"
RunArgument = Annotated[Path, typer.Argument(help="The directory that `bench` wrote.")]
OutOption = Annotated[Path | None, typer.Option(help=f"The HTML file; RUN/{FILE_NAME} without it.", show_default=False)]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(report)


def report(
    run: RunArgument,
    out: OutOption = None,
    slo: options.SloOption = None,
    prices: options.PricesOption = None,
    hardware: options.HardwareOption = None,
    recipe: options.RecipeOption = None,
    memory_bandwidth: options.BandwidthOption = None,
    tflops: options.TflopsOption = None,
    api_input: options.ApiInputOption = None,
    api_output: options.ApiOutputOption = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown; HTML with --out only.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON; HTML with --out only.")] = False,
) -> None:
    """Say what a benchmark measured: doubts first, tables with confidence intervals, charts, economics, formulas.

    The HTML file needs no network and may be sent to anybody; it holds the command, URLs without credentials and the
    machine's description.
    """
    from scalellm_trt.bench import run as runs
    from scalellm_trt.bench.report import content as contents

    described, records = runs.read(run)
    described = options.with_hardware(described, hardware)
    content = contents.gather(
        described,
        records,
        slo=options.slo(slo),
        ceilings=options.ceilings(described, recipe, memory_bandwidth, tflops),
        quotes=options.quotes(prices),
        api=options.api_price(api_input, api_output),
    )
    if as_json or markdown:
        _print_text(content, as_json=as_json)
    else:
        show(content)
    if out is not None or not (as_json or markdown):
        write(content, out or run / FILE_NAME)


def show(content: Content) -> None:
    """Print what one screen holds: doubts, ScaleLLM's table, throughput, economics."""
    from rich.markup import escape

    from scalellm_trt.bench import tables as bench_tables
    from scalellm_trt.bench.report import content as contents
    from scalellm_trt.cli import tables
    from scalellm_trt.cli.bench_view import show_table

    on = tables.console()
    for doubt in content.doubts:
        on.print(f"[dim]note[/] {escape(doubt.text)}" if doubt.is_note else f"[yellow]![/] {escape(doubt.text)}")
    if content.doubts:
        on.print()
    for table in bench_tables.latency_tables(content.run, content.summaries):
        show_table(table, on)
    show_table(bench_tables.rate_table(content.run, content.summaries, content.slo), on)
    if content.standings:
        money = contents.economics(content)
        for table in money.tables:
            show_table(table, on)
        for sentence in money.sentences:
            on.print(escape(sentence), soft_wrap=True)


def _print_text(content: Content, *, as_json: bool) -> None:
    from scalellm_trt.bench.report import as_json as json_report
    from scalellm_trt.bench.report import markdown as markdown_report

    typer.echo(json_report.text(content) if as_json else markdown_report.markdown(content), nl=False)


def write(content: Content, path: Path) -> None:
    """Write the HTML file.

    Raises:
        ArtefactError: it cannot be written.
    """
    from scalellm_trt.bench.report import page
    from scalellm_trt.errors import ArtefactError

    try:
        path.write_text(page.html(content), encoding="utf-8")
    except OSError as error:
        message = f"{path} cannot be written: {error.strerror}"
        raise ArtefactError(message, hint="Name another file with --out.") from error
    print(f"Report: {path}", file=sys.stderr)

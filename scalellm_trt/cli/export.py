"""`export RUN --format F`: a benchmark in the files that AIPerf, genai-perf, vLLM and guidellm write."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scalellm_trt.cli import bench_options as options
from scalellm_trt.errors import ArtefactError, Problem, RecipeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from scalellm_trt.bench.report.content import Content

FORMATS = ("aiperf", "genai-perf", "vllm", "guidellm")
RunArgument = Annotated[Path, typer.Argument(help="The directory that `bench` wrote.")]
OutOption = Annotated[Path | None, typer.Option(help="Where to; RUN/FORMAT without it.", show_default=False)]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(export)


def export(
    run: RunArgument,
    form: Annotated[str, typer.Option("--format", help=f"One of {', '.join(FORMATS)}.")],
    out: OutOption = None,
    slo: options.SloOption = None,
    prices: options.PricesOption = None,
    hardware: options.HardwareOption = None,
) -> None:
    """Write a benchmark in the shape of another tool, for what reads that tool's files."""
    from scalellm_trt.bench import run as runs
    from scalellm_trt.bench.report import content as contents

    if form not in FORMATS:
        hint = f"Allowed: {', '.join(FORMATS)}."
        raise RecipeError([Problem(key="--format", message=f"{form!r} is not known", hint=hint)])
    described, records = runs.read(run)
    content = contents.gather(
        options.with_hardware(described, hardware), records, slo=options.slo(slo), quotes=options.quotes(prices)
    )
    directory = out or run / form
    for name, text in _writer(form)(content).items():
        path = directory / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            message = f"{path} cannot be written: {error.strerror}"
            raise ArtefactError(message, hint="Name another directory with --out.") from error
        print(path)


def _writer(form: str) -> Callable[[Content], dict[str, str]]:
    from scalellm_trt.bench.export import aiperf, genai_perf, guidellm, vllm

    return {"aiperf": aiperf.files, "genai-perf": genai_perf.files, "vllm": vllm.files, "guidellm": guidellm.files}[
        form
    ]

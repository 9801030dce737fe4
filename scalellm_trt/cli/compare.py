"""`compare`: several targets in turns, or one against a run before; a verdict only where it is sure."""

from __future__ import annotations

import datetime
import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from scalellm_trt.cli import bench as options
from scalellm_trt.cli import bench_result
from scalellm_trt.errors import Problem, RecipeError, ThresholdMissedError

BaselineOption = Annotated[
    Path | None, typer.Option(help="Directory of a run before: exit code 8 where a metric became worse.")
]
RunOption = Annotated[Path | None, typer.Option(help="Directory of a run to judge, instead of measuring.")]
ThresholdOption = Annotated[float, typer.Option(min=0, help="Share that may be lost, for example 0.05.")]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(compare)


def compare(
    target: options.TargetOption = None,
    baseline: BaselineOption = None,
    run: RunOption = None,
    threshold: ThresholdOption = 0.0,
    workload: options.WorkloadOption = None,
    isl: options.IslOption = "256",
    osl: options.OslOption = "64",
    concurrency: options.ConcurrencyOption = "1,4,16",
    requests: options.RequestsOption = None,
    duration: options.DurationOption = None,
    warmup: options.WarmupOption = 1,
    rounds: options.RoundsOption = 5,
    timeout: options.TimeoutOption = 60.0,
    seed: options.SeedOption = 1,
    processes: options.ProcessesOption = None,
    tokenizer: options.TokenizerOption = None,
    repository: options.RepositoryOption = Path("triton_repo"),
    out: options.OutOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Compare targets in one run, in which they take turns, each with the first; or with a run before.

    Ratios of latencies and of output tokens a second have a 95% interval over rounds and requests; only where all of it
    lies on one side of 1 is there a verdict.
    Exit code 8 where a target became worse than in the baseline.
    """
    from scalellm_trt.bench.prepare import Asked

    if baseline is None and run is None and len(target or ()) < 2:
        message = "there is nothing to compare with"
        raise RecipeError([Problem(key="--target", message=message, hint="Give two targets, or --baseline DIR.")])
    directory = run or out or Path("builds") / "bench" / datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    if run is None:
        asked = Asked(
            targets=target or options.default_targets(),
            workloads=workload or ["lengths"],
            isl=isl,
            osl=osl,
            concurrency=concurrency,
            rates=(),
            arrival="poisson",
            requests=requests,
            duration_s=duration,
            warmup=warmup,
            rounds=rounds,
            timeout_s=timeout,
            seed=seed,
            processes=processes,
            tokenizer=tokenizer,
            repository=repository,
            directory=directory,
            command=" ".join(["scalellm-trt", *sys.argv[1:]]),
        )
        options.measure(asked)
    _judge(directory, baseline, threshold, as_json=as_json)


def _judge(directory: Path, baseline: Path | None, threshold: float, *, as_json: bool) -> None:
    from scalellm_trt.bench import comparison, comparison_table
    from scalellm_trt.bench import run as runs
    from scalellm_trt.cli import bench_view, tables

    now = runs.read(directory)
    ratios = comparison.within(*now, threshold)
    kept = [] if baseline is None else comparison.against(now, runs.read(baseline), threshold)
    if as_json:
        rows = [comparison_table.as_json(ratio) for ratio in [*ratios, *kept]]
        words = {"formula": comparison_table.FORMULA, "limits": comparison_table.LIMITS}
        print(json.dumps({"directory": str(directory), "ratios": rows, **words}))
    else:
        bench_result.show(directory, as_json=False)
        bench_view.show_table(comparison_table.table([*ratios, *kept]), tables.console())
    worse = [ratio for ratio in kept if ratio.verdict == "worse"]
    if worse:
        what = ", ".join(
            f"{each.target} at {each.load.label}: {each.metric.title} × {comparison_table.text(each)}" for each in worse
        )
        message = f"worse than {baseline}: {what}"
        raise ThresholdMissedError(message, hint="Run it again to be sure; --threshold lets a share pass.")

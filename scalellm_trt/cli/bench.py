"""`bench`: measure any server under load, and keep what was seen of each request."""

from __future__ import annotations

import datetime
import importlib.util
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from scalellm_trt.cli import bench_options, bench_result
from scalellm_trt.errors import Problem, RecipeError, ServerNotReadyError, ToolchainError

if TYPE_CHECKING:
    from types import FrameType

    from scalellm_trt.bench.prepare import Asked
    from scalellm_trt.bench.run import Run
    from scalellm_trt.cli.load_progress import PlainLoad, TerminalLoad

TargetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        help="What to measure; may be given again: NAME=http://HOST:PORT?model=MODEL, NAME=grpc://HOST:PORT/MODEL "
        "(token model), NAME=grpc-text://HOST:PORT/MODEL, NAME=engine:DIRECTORY. Else the gateway or the server on "
        "the usual ports.",
        show_default=False,
    ),
]
WorkloadOption = Annotated[
    list[str] | None,
    typer.Option("--workload", help="What to ask, see docs/guide.md; may be given again. Else --isl and --osl."),
]
IslOption = Annotated[str, typer.Option(help="Tokens of a prompt, template included: a number or a distribution.")]
OslOption = Annotated[str, typer.Option(help="Tokens of an answer: a number or a distribution.")]
ConcurrencyOption = Annotated[str, typer.Option(help="Requests at a time, one measurement each: any list.")]
RateOption = Annotated[
    str | None, typer.Option(help="Open loop: requests per second, a list; latency counts from when one is due.")
]
ArrivalOption = Annotated[str, typer.Option(help="Of an open loop: constant or poisson.")]
RequestsOption = Annotated[
    int | None, typer.Option(min=1, help="Of each measurement; else two for each at a time, 8 at least.")
]
DurationOption = Annotated[
    float | None, typer.Option(min=0.1, help="Seconds in which requests begin, instead of a number of them.")
]
WarmupOption = Annotated[int, typer.Option(min=0, help="Requests before each measurement.")]
RoundsOption = Annotated[int, typer.Option(min=1, help="Times to measure everything; shows how noisy it is.")]
TimeoutOption = Annotated[float, typer.Option(min=0.1, help="Seconds that a request may take.")]
SeedOption = Annotated[int, typer.Option(help="Of prompts, lengths and arrivals.")]
ProcessesOption = Annotated[int | None, typer.Option(min=1, help="Client processes; else as many as the load needs.")]
TokenizerOption = Annotated[
    str | None,
    typer.Option(help="The served tokenizer: a directory, or a recipe that is built. Else found in the repository."),
]
RepositoryOption = Annotated[Path, typer.Option(help="Where services are published.")]
OutOption = Annotated[Path | None, typer.Option(help="Directory of the run, else builds/bench/<time>.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object at the end.")]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(bench)


def bench(
    target: TargetOption = None,
    workload: WorkloadOption = None,
    isl: IslOption = "256",
    osl: OslOption = "64",
    concurrency: ConcurrencyOption = "1,2,4,8,16,32,64",
    rate: RateOption = None,
    arrival: ArrivalOption = "poisson",
    requests: RequestsOption = None,
    duration: DurationOption = None,
    warmup: WarmupOption = 1,
    rounds: RoundsOption = 1,
    timeout: TimeoutOption = 60.0,
    seed: SeedOption = 1,
    processes: ProcessesOption = None,
    tokenizer: TokenizerOption = None,
    repository: RepositoryOption = Path("triton_repo"),
    slo: bench_options.SloOption = None,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure servers under load; several targets take turns in one run.

    Writes what was seen of every request, as it comes: Ctrl-C leaves a valid part. Exit code 7 where a target was given
    up because it failed again and again.
    """
    from scalellm_trt.bench.prepare import Asked

    if requests is not None and duration is not None:
        raise RecipeError([Problem(key="--duration", message="--requests says how long already", hint="Give one.")])
    limits = bench_options.slo(slo)
    directory = out or Path("builds") / "bench" / datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    run = measure(
        Asked(
            targets=target or default_targets(),
            workloads=workload or ["lengths"],
            isl=isl,
            osl=osl,
            concurrency=concurrency,
            rates=_rates(rate),
            arrival=_arrival(arrival),
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
    )
    bench_result.show(directory, as_json=as_json, slo=limits)
    if run.is_partial:
        message = f"{directory}: a target was given up; what was measured before is kept"
        raise ServerNotReadyError(message, hint="Look at its log, and at error_text in records.jsonl.")


def measure(asked: Asked) -> Run:
    """Run it, with its progress on stderr; SIGTERM ends it as Ctrl-C does."""
    require_client()
    from scalellm_trt.bench import prepare

    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        with _reporter() as reporter:
            return prepare.runner(asked, reporter).run()
    except KeyboardInterrupt:
        if (asked.directory / "run.json").is_file():
            print(f"interrupted; {asked.directory} holds what was measured", file=sys.stderr)
            bench_result.show(asked.directory, as_json=False)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def require_client() -> None:
    """Return where the extra `bench` is installed.

    Raises:
        ToolchainError: a package is missing.
    """
    missing = [name for name in ("hpack", "httptools", "orjson", "uvloop") if importlib.util.find_spec(name) is None]
    if missing:
        message = f"the load generator needs {', '.join(missing)}, which is not installed"
        raise ToolchainError(message, hint="Install it: pip install 'scalellm-trt[bench]'")


def default_targets() -> list[str]:
    """Return what answers on the usual ports: the gateway, else a server's text model.

    Raises:
        ServerNotReadyError: neither does.
    """
    import socket

    for port, text in ((2345, "gateway=http://127.0.0.1:2345"), (8001, "text=grpc-text://127.0.0.1:8001")):
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return [text]
    message = "nothing to measure: no gateway on 127.0.0.1:2345, no tritonserver on 127.0.0.1:8001"
    raise ServerNotReadyError(message, hint="Start one: scalellm-trt up RECIPE; or name one with --target.")


def _reporter() -> TerminalLoad | PlainLoad:
    from scalellm_trt.cli import tables
    from scalellm_trt.cli.load_progress import PlainLoad, TerminalLoad

    console = tables.console(stderr=True)
    return TerminalLoad(console) if console.is_terminal else PlainLoad()


def _rates(text: str | None) -> tuple[float, ...]:
    if text is None:
        return ()
    try:
        rates = tuple(float(part) for part in text.split(","))
    except ValueError:
        rates = ()
    if not rates or min(rates) <= 0:
        raise RecipeError([Problem(key="--rate", message=f"{text!r} is no list of rates", hint="Write it as 0.5,1,2.")])
    return rates


def _arrival(text: str) -> Literal["constant", "poisson"]:
    if text not in ("constant", "poisson"):
        raise RecipeError([Problem(key="--arrival", message=f"{text!r} is unknown", hint="constant or poisson")])
    return cast("Literal['constant', 'poisson']", text)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt

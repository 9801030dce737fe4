"""What was asked for on the command line in; a run that is ready to begin, out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from scalellm_trt.bench import environment, tokenizer_choice
from scalellm_trt.bench.load.cell_plan import Effort
from scalellm_trt.bench.load.job_source import JobSource
from scalellm_trt.bench.load.runner import Runner, Wish
from scalellm_trt.bench.run import Load
from scalellm_trt.bench.targets import find, provenance, target
from scalellm_trt.bench.tokens import ServedTokenizer
from scalellm_trt.bench.workloads import choice

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from scalellm_trt.bench.load.progress import Reporter
    from scalellm_trt.bench.run import LoadMode


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Options of `bench` and `compare`, as typed.

    Attributes:
        rates: of an open loop; empty is a closed loop.
        arrival: constant or poisson, of an open loop.
    """

    targets: Sequence[str]
    workloads: Sequence[str]
    isl: str
    osl: str
    concurrency: str
    rates: Sequence[float]
    arrival: LoadMode
    requests: int | None
    duration_s: float | None
    warmup: int
    rounds: int
    timeout_s: float
    seed: int
    processes: int | None
    tokenizer: str | None
    repository: Path
    directory: Path
    command: str


def runner(asked: Asked, reporter: Reporter) -> Runner:
    """Return the run.

    Raises:
        RecipeError: an option is wrong.
        ArtefactError: there is no tokenizer.
    """
    ways = target.parse_all(asked.targets)
    choices = [choice.parse(text) for text in asked.workloads]
    closed = [
        Load(mode="closed", concurrency=number) for number in choice.concurrencies(asked.concurrency, "--concurrency")
    ]
    open_loads = [Load(mode=asked.arrival, rate_per_s=rate) for rate in asked.rates]
    engines = [way.engine for way in ways if way.engine is not None]
    models = [way.model for way in ways]
    directory = tokenizer_choice.find(asked.tokenizer, models, asked.repository, engines)
    tokenizer = ServedTokenizer(directory)
    workloads = [choice.make(each, tokenizer, isl=asked.isl, osl=asked.osl, seed=asked.seed) for each in choices]
    sample = JobSource(workloads[0], tokenizer, cell=0, prefix="probe").job(0, is_warmup=True).first
    found = [find.examine(way, sample) for way in ways]
    targets = [provenance.added(each, asked.repository) for _, each in found]
    return Runner(
        Wish(
            ways=[way for way, _ in found],
            targets=targets,
            workloads=workloads,
            loads=[_own_loads(each) or open_loads or closed for each in choices],
            efforts=[_effort(asked, each) for each in choices],
            rounds=asked.rounds,
            timeout_s=asked.timeout_s,
            seed=asked.seed,
            processes=asked.processes,
            num_cores=environment.num_cores(),
            command=asked.command,
            environment={**environment.describe(), "tokenizer": f"{directory.name}, sha256 {tokenizer.digest[:16]}"},
        ),
        tokenizer,
        asked.directory,
        reporter,
    )


def _effort(asked: Asked, each: choice.Choice) -> Effort:
    if each.num_requests is not None:
        return Effort(num_requests=each.num_requests, num_warmup=asked.warmup)
    return Effort(num_requests=asked.requests, duration_s=asked.duration_s, num_warmup=asked.warmup)


def _own_loads(each: choice.Choice) -> list[Load]:
    return [Load(mode="closed", concurrency=number) for number in each.concurrencies or ()]

"""A run in, everything that a report shows out: doubts, tables, and the sections that they stand in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from scalellm_trt.bench import comparison, comparison_table, honesty, metrics, money, statistics, summary
from scalellm_trt.bench.tables import Table, detail_table, figure, latency_tables, rate_table
from scalellm_trt.economics import prices

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from scalellm_trt.bench.ceiling import Ceiling
    from scalellm_trt.bench.honesty import Doubt
    from scalellm_trt.bench.metrics import Slo
    from scalellm_trt.bench.records import RequestRecord
    from scalellm_trt.bench.run import Run
    from scalellm_trt.bench.summary import Summary
    from scalellm_trt.economics import ApiPrice, Price
    from scalellm_trt.economics.standing import Standing


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """Everything of one run.

    Attributes:
        records: those that were measured, without warm-up.
        standings: of rows whose hardware has a price.
        api: to compare with; None where nobody named one.
    """

    run: Run
    records: Sequence[RequestRecord]
    summaries: Sequence[Summary]
    slo: Slo
    doubts: Sequence[Doubt]
    standings: Sequence[Standing]
    api: ApiPrice | None

    @property
    def title(self) -> str:
        """What was measured, on a line."""
        names = [target.name for target in self.run.targets]
        shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        return f"Benchmark of {shown}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A heading, what stands below it in sentences, and its tables."""

    title: str
    sentences: tuple[str, ...]
    tables: tuple[Table, ...]

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to say."""
        return not self.sentences and not self.tables


def gather(
    described: Run,
    records: Sequence[RequestRecord],
    *,
    slo: Slo | None = None,
    ceilings: Mapping[int, Ceiling] | None = None,
    quotes: Mapping[str, Price] | None = None,
    api: ApiPrice | None = None,
) -> Content:
    """Make all figures of a run.

    Args:
        described: the run.
        records: all of them.
        slo: what goodput counts, and what of TTFT and TPOT scores are judged by; none without.
        ceilings: rooflines by the target's index.
        quotes: prices; the bundled ones without.
        api: what an API takes for tokens.
    """
    measured = [record for record in records if not record.is_warmup]
    limits = metrics.Slo() if slo is None else slo
    rows = summary.summarize(described, measured, limits)
    seen = honesty.Seen(run=described, summaries=rows, records=measured, ceilings=ceilings or {})
    return Content(
        run=described,
        records=measured,
        summaries=rows,
        slo=limits,
        doubts=honesty.examine(seen),
        standings=money.standings(described, rows, prices() if quotes is None else quotes, limits),
        api=api,
    )


def latencies(content: Content) -> Section:
    """Return ScaleLLM's table and what is not in it: throughput, percentiles."""
    described, rows = content.run, content.summaries
    details = tuple(detail_table(described, rows, metric) for metric in (*metrics.LATENCIES, metrics.PER_USER))
    return Section(
        title="Latency and throughput",
        sentences=(
            f"Figures in brackets are the ends of {statistics.CONFIDENCE:.0%} confidence intervals (bootstrap, "
            f"{statistics.NUM_RESAMPLES:,} resamples, seed {statistics.SEED}). Rounds are pooled.",
        ),
        tables=(*latency_tables(described, rows), rate_table(described, rows, content.slo), *details),
    )


def comparisons(content: Content) -> Section:
    """Return how each target compares with the first one; no table where there is but one."""
    found = comparison.within(content.run, content.records)
    return Section(title="Comparison", sentences=(), tables=(comparison_table.table(found),) if found else ())


def economics(content: Content) -> Section:
    """Return scores and costs; a sentence where no price is known."""
    rows = content.standings
    if not rows:
        why = "No price is known: name the card behind each target (--hardware TARGET=CARD), or give a price file."
        return Section(title="Economics", sentences=(why,), tables=())
    return Section(
        title="Economics",
        sentences=money.verdicts(rows, content.api),
        tables=(money.score_table(rows), money.cost_table(rows)),
    )


def surroundings(content: Content) -> Section:
    """Return where and with what it was measured, recipe and digests included."""
    described = content.run
    facts = [(target.name, key, value) for target in described.targets for key, value in target.facts.items()]
    tables = [
        Table(
            title="Targets",
            columns=("name", "asked as", "URL", "model", "streams", "hardware"),
            rows=tuple(
                (
                    each.name,
                    each.kind,
                    each.url,
                    each.model,
                    "yes" if each.streams else "no",
                    each.hardware or "not said",
                )
                for each in described.targets
            ),
            first_number=6,
        ),
        Table(title="Facts", columns=("target", "what", "value"), rows=tuple(facts), first_number=3),
        Table(
            title="Workloads",
            columns=("name", "seed", "prompt p50", "prompt max", "answer p50", "digest"),
            rows=tuple(
                (each.name, f"{each.seed}", f"{each.isl_p50}", f"{each.isl_max}", f"{each.osl_p50}", each.digest)
                for each in described.workloads
            ),
        ),
        _clients(content),
        Table(
            title="Environment",
            columns=("what", "value"),
            rows=(
                ("started", described.started),
                ("command", described.command),
                ("time that a request has", f"{described.timeout_s:g} s"),
                *described.environment.items(),
            ),
            first_number=2,
        ),
    ]
    return Section(title="Environment", sentences=(), tables=tuple(each for each in tables if each.rows))


def formulas() -> Section:
    """Return how each figure is made."""
    shown = (*metrics.PER_REQUEST, *metrics.AGGREGATES)
    rows = [(each.title, each.unit, each.formula) for each in shown]
    rows += [("Economic score", "1/(s·USD/h)", money.SCORE_FORMULA), ("Cost of tokens", "USD", money.COST_FORMULA)]
    table = Table(title="Formulas", columns=("metric", "unit", "formula"), rows=tuple(rows), first_number=3)
    sentence = "Times are by the client's clock; scheduled is when a request was due (closed loop: when it was sent)."
    return Section(title="How figures are made", sentences=(sentence,), tables=(table,))


def _clients(content: Content) -> Table:
    rows = []
    for each in content.summaries:
        cells = [cell for cell in content.run.cells if cell.index in each.cells]
        worst = max(cells, key=lambda cell: cell.client.cpu_share).client
        lag = (max(cell.client.loop_lag_p50_ms for cell in cells), max(cell.client.loop_lag_p99_ms for cell in cells))
        delay = max(cell.client.send_delay_p99_ms for cell in cells)
        name = content.run.targets[each.target].name
        cpu = f"{worst.cpu_share:.0%} × {worst.num_processes}"
        rows.append((name, each.load.label, cpu, *(figure(value) for value in (*lag, delay))))
    return Table(
        title="Client",
        columns=("target", "load", "busiest process × processes", "loop lag p50, ms", "p99, ms", "send delay p99, ms"),
        rows=tuple(rows),
        first_number=1,
        note="The worst round of each row.",
    )

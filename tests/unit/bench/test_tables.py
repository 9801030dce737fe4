from __future__ import annotations

from typing import TYPE_CHECKING

from scalellm_trt.bench import metrics, summary, tables
from scalellm_trt.bench.metrics import Slo
from scalellm_trt.bench.statistics import Interval
from tests.fakes.bench_runs import cell, record, run, target

if TYPE_CHECKING:
    from scalellm_trt.bench.records import RequestRecord
    from scalellm_trt.bench.run import Run

SLO = Slo(e2e_latency_ms=1600)


def rows_of(described: Run, records: list[RequestRecord]) -> tuple[summary.Summary, ...]:
    return summary.summarize(described, records, SLO)


def test_the_latency_table_is_shaped_like_scalellms() -> None:
    cells = [cell(0, 1), cell(1, 1, target=1), cell(2, 8), cell(3, 8, target=1, is_complete=False)]
    described = run(cells, [target("hugging face"), target("ours")])
    records = [
        record(cell=0),
        record((0.025, 0.0335), cell=1),
        record(cell=2, error="timeout", end_s=60.0),
        record((2.0,), cell=3),
    ]
    (found,) = tables.latency_tables(described, rows_of(described, records))
    assert found.columns == ("concurrent", "hugging face", "ours")
    assert found.rows == (("1", "1,000.0 / 250.0", "25.0 / 8.5"), ("8", "timeout", "2,000.0 / – (partial)"))
    assert "fewer than 90% of the requests finished within 60 s" in found.note
    assert "| 1 | 1,000.0 / 250.0 | 25.0 / 8.5 |" in found.markdown()


def test_a_cell_that_failed_says_of_what_and_one_without_requests_says_so() -> None:
    described = run([cell(0, 1), cell(1, 2)])
    (found,) = tables.latency_tables(described, rows_of(described, [record(error="refused")] * 3))
    assert found.rows == (("1", "failed: refused 3"), ("2", "nothing finished"))


def test_details_have_every_percentile_with_its_interval_and_the_formula() -> None:
    described = run([cell()])
    found = tables.detail_table(described, rows_of(described, [record()]), metrics.TTFT)
    assert found.columns == ("target", "load", "samples", "p50", "p90", "p95", "p99")
    assert found.rows == (("gateway", "1", "1", *["1,000 (1,000–1,000)"] * 4),)
    assert found.note == metrics.TTFT.formula
    nothing = tables.detail_table(described, rows_of(described, []), metrics.TTFT)
    assert nothing.rows == (("gateway", "1", "0", "–", "–", "–", "–"),)


def test_rates_stand_beside_what_failed() -> None:
    described = run([cell()])
    records = [record(index=0), record((1.0, 2.0), index=1), record(index=2, error="garbage")]
    found = tables.rate_table(described, rows_of(described, records), SLO)
    assert found.columns[-4:] == ("goodput/s", "finished", "errors", "given up")
    (row,) = found.rows
    assert [cell.split(" (")[0] for cell in row[2:6]] == ["0.2", "0.5", "2.00", "0.1"]
    assert row[6:] == ("2 of 3", "garbage 1", "0")
    assert "goodput/s" not in tables.rate_table(described, rows_of(described, records), Slo()).columns


def test_figures_are_short_and_whole_before_the_point() -> None:
    shown = [tables.figure(each) for each in (0, 0.01234, 1.234, 12.34, 1234.5)]
    assert shown == ["0", "0.0123", "1.23", "12.3", "1,234"]
    assert tables.interval(Interval(value=2, low=1, high=30)) == "2.00 (1.00–30.0)"


def test_markdown_keeps_names_from_breaking_the_table() -> None:
    found = tables.Table(title="a", columns=("x", "y"), rows=(("a|b", "<script>"),))
    assert found.markdown().splitlines()[-1] == "| a\\|b | &lt;script> |"

"""A run in, one row per target and load with its records and samples out: what every format is made of."""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from scalellm_trt.bench import metrics
from scalellm_trt.bench.run import records_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from scalellm_trt.bench.records import RequestRecord
    from scalellm_trt.bench.report.content import Content
    from scalellm_trt.bench.run import Target
    from scalellm_trt.bench.summary import Summary

PERCENTILES = (1, 5, 10, 25, 50, 75, 90, 95, 99)
Files = dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One target under one load.

    Attributes:
        records: measured ones, by cell and index.
        started_s: when the run began, seconds since 1970: times of records count from there.
    """

    content: Content
    summary: Summary
    records: Sequence[RequestRecord]
    started_s: float

    @property
    def target(self) -> Target:
        """Who was asked."""
        return self.content.run.targets[self.summary.target]

    @property
    def good(self) -> list[RequestRecord]:
        """Requests that came to their end."""
        return [record for record in self.records if record.is_good]

    @property
    def slug(self) -> str:
        """A name for files: target, workload where there are several, load."""
        run, load = self.content.run, self.summary.load
        name = f"{load.mode}-{load.rate_per_s:g}" if load.concurrency is None else f"concurrency-{load.concurrency}"
        words = [self.target.name, *([f"workload-{self.summary.workload}"] * (len(run.workloads) > 1)), name]
        return "-".join(slug(word) for word in words)

    @property
    def window_s(self) -> tuple[float, float]:
        """From the first cell's begin to the last one's end, seconds since 1970."""
        cells = [cell for cell in self.content.run.cells if cell.index in self.summary.cells]
        return self.started_s + min(c.begin_s for c in cells), self.started_s + max(c.end_s for c in cells)

    def samples(self, metric: metrics.Metric) -> list[float]:
        """Return one metric of each good request where it is defined, all gaps for the inter-chunk latency."""
        if metric.name not in self.summary.distributions:
            return []
        if metric is metrics.ICL:
            return [gap for record in self.good for gap in metrics.icl_ms(record)]
        return [float(value) for record in self.good if isinstance(value := metric.of(record), int | float)]


def slug(name: str) -> str:
    """Return a name fit for a file."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).lstrip(".") or "_"


def rows(content: Content) -> Iterator[Row]:
    """Yield every row of a run, in its order."""
    started = datetime.datetime.fromisoformat(content.run.started.replace("Z", "+00:00"))
    cells = {cell.index: cell for cell in content.run.cells}
    for summary in content.summaries:
        records = [r for index in summary.cells for r in records_of(cells[index], content.records)]
        ordered = sorted(records, key=lambda record: (record.cell, record.index))
        yield Row(content=content, summary=summary, records=ordered, started_s=started.timestamp())


def statistics_of(values: Sequence[float]) -> Mapping[str, float]:
    """Return avg, percentiles p1 to p99, min, max and std (of the samples) of at least one value."""
    found = np.asarray(values, dtype=np.float64)
    return {
        "avg": float(found.mean()),
        **{f"p{p}": float(value) for p, value in zip(PERCENTILES, np.percentile(found, PERCENTILES), strict=True)},
        "min": float(found.min()),
        "max": float(found.max()),
        "std": float(found.std()),
    }

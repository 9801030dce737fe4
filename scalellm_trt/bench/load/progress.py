"""How far a run is: what a live table or a log shows, and how long the rest may take."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scalellm_trt.bench.records import RequestRecord
    from scalellm_trt.bench.run import Load

SHOWN_REQUESTS = 2000


@dataclass(slots=True, kw_only=True)
class CellProgress:
    """One cell, as far as it is.

    Attributes:
        number: of the cell, from 1.
        num_wanted: requests; None where a duration decides.
        elapsed_s: since it began.
        eta_s: seconds until the end of the run, estimated from the cells before; None before there are any.
        last_error: the newest failure's class and text.
    """

    number: int
    num_cells: int
    target: str
    workload: str
    load: Load
    round: int
    num_wanted: int | None
    elapsed_s: float = 0.0
    eta_s: float | None = None
    num_done: int = 0
    num_failed: int = 0
    num_tokens: int = 0
    last_error: str | None = None
    _ttft_ms: list[float] = field(default_factory=list)

    def take(self, record: RequestRecord) -> None:
        """Count a measured request."""
        self.num_done += 1
        if record.error is not None:
            self.num_failed += 1
            self.last_error = f"{record.error}: {record.error_text}"
        self.num_tokens += record.osl
        if record.chunk_s and record.error is None:
            self._ttft_ms = [*self._ttft_ms[-SHOWN_REQUESTS:], (record.chunk_s[0] - record.scheduled_s) * 1000]

    @property
    def ttft_p50_ms(self) -> float | None:
        """Return the median time to the first token so far; None where none came."""
        return statistics.median(self._ttft_ms) if self._ttft_ms else None

    @property
    def tokens_per_s(self) -> float:
        """Return output tokens of finished requests per second."""
        return self.num_tokens / self.elapsed_s if self.elapsed_s > 0 else 0.0


class Reporter(Protocol):
    """Shows a run to somebody."""

    def note(self, text: str) -> None:
        """Say something once."""
        ...

    def progress(self, cell: CellProgress) -> None:
        """Show how far a cell is; comes often."""
        ...

    def finished(self, cell: CellProgress) -> None:
        """Show a cell that is over."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A cell as an estimate sees it; `amount` is in seconds or in requests, weighted by how many run at a time."""

    kind: tuple[int, int, str]
    amount: float


def eta_s(done: Sequence[tuple[Work, float]], left: Sequence[Work]) -> float | None:
    """Return how long cells will take, from the seconds that others took; None before there are any.

    A cell that was measured before (same target, workload and load) will take as long as it did; others in proportion.
    """
    amount = sum(work.amount for work, _ in done)
    if amount <= 0:
        return None
    pace = sum(seconds for _, seconds in done) / amount
    known = {work.kind: seconds for work, seconds in done}
    return sum(known.get(work.kind, pace * work.amount) for work in left)

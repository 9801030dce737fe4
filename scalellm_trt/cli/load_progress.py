"""A benchmark's progress: a live table on a terminal, plain lines in a log; both on stderr."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from rich.live import Live
from rich.text import Text

from scalellm_trt.cli import tables

if TYPE_CHECKING:
    from types import TracebackType

    from rich.console import Console
    from rich.table import Table

    from scalellm_trt.bench.load.progress import CellProgress

LINE_INTERVAL_S = 10.0
SHOWN_CELLS = 12
COLUMNS = ("cell", "target", "load", "round", "requests", "failed", "tokens/s", "TTFT p50 ms", "s")


class TerminalLoad:
    """A table of the newest cells, redrawn in place; use as a context manager."""

    def __init__(self, console: Console) -> None:
        """Draw on `console`."""
        self._console = console
        self._done: list[CellProgress] = []
        self._live = Live(console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> TerminalLoad:
        """Start to draw."""
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the table away: the results follow."""
        self._live.stop()

    def note(self, text: str) -> None:
        """Say something above the table."""
        self._live.console.print(Text(text))

    def progress(self, cell: CellProgress) -> None:
        """Redraw."""
        self._live.update(self._table([*self._done, cell], cell.eta_s))

    def finished(self, cell: CellProgress) -> None:
        """Keep a cell."""
        self._done = [*self._done[-SHOWN_CELLS:], cell]

    def _table(self, cells: list[CellProgress], eta_s: float | None) -> Table:
        made = tables.table(self._console, *COLUMNS, numbers=COLUMNS[3:])
        for cell in cells:
            made.add_row(*_row(cell))
        made.caption = "" if eta_s is None else f"about {duration(eta_s)} left; Ctrl-C keeps what is there"
        return made


class PlainLoad:
    """Lines: one for each cell, and one now and then while a long one runs."""

    def __init__(self) -> None:
        """Begin."""
        self._last_s = time.monotonic()

    def __enter__(self) -> PlainLoad:
        """Return it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave nothing."""

    def note(self, text: str) -> None:
        """Print it."""
        print(text, file=sys.stderr, flush=True)

    def progress(self, cell: CellProgress) -> None:
        """Print a line when the last one is old."""
        if time.monotonic() - self._last_s >= LINE_INTERVAL_S:
            self._print(cell, "")

    def finished(self, cell: CellProgress) -> None:
        """Print a line."""
        self._print(cell, "  done")

    def _print(self, cell: CellProgress, ending: str) -> None:
        self._last_s = time.monotonic()
        left = "" if cell.eta_s is None or ending else f"  about {duration(cell.eta_s)} left"
        number, target, load, round_number, requests, failed, speed, ttft, seconds = _row(cell)
        print(
            f"[{number}] {target} at {load}, round {round_number}: {requests} requests, {failed} failed, "
            f"{speed} tokens/s, TTFT p50 {ttft} ms, {seconds} s{ending}{left}",
            file=sys.stderr,
            flush=True,
        )


def duration(seconds: float) -> str:
    """Return seconds as `1 h 05 min`, `4 min 10 s` or `12 s`."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"


def _row(cell: CellProgress) -> tuple[str, ...]:
    ttft_ms = cell.ttft_p50_ms
    return (
        f"{cell.number}/{cell.num_cells}",
        cell.target,
        cell.load.label,
        str(cell.round + 1),
        f"{cell.num_done}" if cell.num_wanted is None else f"{cell.num_done}/{cell.num_wanted}",
        str(cell.num_failed),
        f"{cell.tokens_per_s:.0f}",
        "–" if ttft_ms is None else f"{ttft_ms:.1f}",
        f"{cell.elapsed_s:.0f}",
    )

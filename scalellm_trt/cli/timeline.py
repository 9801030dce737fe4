"""The build's live timeline: moving bars on a terminal, plain lines in a log."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from types import TracebackType

    from rich.console import Console
    from rich.progress import TaskID

    from scalellm_trt.pipeline import Reporter, Step, StepReport

LINE_INTERVAL_S = 5.0


class TerminalTimeline:
    """A bar per step, redrawn in place; use as a context manager so that the cursor comes back."""

    def __init__(self, console: Console) -> None:
        """Draw on `console`; nothing appears before the first step starts."""
        self._progress = Progress(
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.fields[step]:<9}"),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("[dim]{task.description}", markup=True),
            console=console,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Reporter:
        """Start to draw."""
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the last state on the screen."""
        self._progress.stop()

    def started(self, step: Step) -> None:
        """Add a bar."""
        self._task = self._progress.add_task("", total=1.0, step=step)

    def progress(self, activity: str, share: float) -> None:
        """Move the newest bar."""
        if self._task is not None:
            # A step reports 1.0 only when it is finished: hashing and the switch still follow.
            self._progress.update(self._task, description=activity, completed=min(share, 0.99))

    def finished(self, report: StepReport) -> None:
        """Fill the newest bar and say why its step ran."""
        if self._task is not None:
            self._progress.update(self._task, description=outcome(report), completed=1.0)


class LineTimeline:
    """One line when a step starts, at most one every few seconds while it runs, one when it ends."""

    def __init__(self, console: Console) -> None:
        """Write to `console`."""
        self._console = console
        self._last = 0.0
        self._step: Step | None = None

    def __enter__(self) -> Reporter:
        """Nothing to prepare."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to put back."""

    def started(self, step: Step) -> None:
        """Say which step begins."""
        self._step, self._last = step, time.monotonic()
        self._line(f"{step}: started")

    def progress(self, activity: str, share: float) -> None:
        """Say how far the step is, when the last line is old enough."""
        if time.monotonic() - self._last >= LINE_INTERVAL_S:
            self._last = time.monotonic()
            self._line(f"{self._step}: {share:.0%} {activity}")

    def finished(self, report: StepReport) -> None:
        """Say how long the step took and why it ran."""
        self._line(f"{report.step}: {report.seconds:.1f} s, {outcome(report)}")

    def _line(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def outcome(report: StepReport) -> str:
    """Say in a few words what became of a step."""
    if not report.ran:
        return "unchanged"
    shown = "; ".join(report.reasons[:3])
    more = f"; and {len(report.reasons) - 3} more" if len(report.reasons) > 3 else ""
    return f"ran: {shown}{more}"


def timeline(console: Console) -> TerminalTimeline | LineTimeline:
    """Return the timeline that suits where the output goes."""
    return TerminalTimeline(console) if console.is_terminal else LineTimeline(console)

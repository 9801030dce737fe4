"""A reporter that remembers what a build told it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scalellm_trt.pipeline import Step, StepReport


class Recorder:
    """Remembers starts and ends, and every activity; checks shares."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.activities: list[str] = []

    def started(self, step: Step) -> None:
        self.events.append(f"start {step}")

    def progress(self, activity: str, share: float) -> None:
        assert activity
        assert 0 <= share <= 1
        self.activities.append(activity)

    def finished(self, report: StepReport) -> None:
        self.events.append(f"end {report.step}")

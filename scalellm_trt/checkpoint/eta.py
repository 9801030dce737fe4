"""A progress callback in, one that also says how long it has taken and how long it will take out."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    Progress = Callable[[str, float], None]

_FIRST_SHARE: Final = 0.01  # before this much is done, an estimate is a guess
_FIRST_SECONDS: Final = 2.0


def with_eta(progress: Progress, clock: Callable[[], float] = time.monotonic) -> Progress:
    """Return a callback that appends `(1:05 elapsed, about 12:40 left)` to the activity.

    The remaining time is the elapsed time times what is left, divided by what is done.
    """
    started = clock()

    def report(activity: str, share: float) -> None:
        elapsed = clock() - started
        if share >= 1 or elapsed < _FIRST_SECONDS:
            progress(activity, share)
            return
        left = f", about {_minutes(elapsed * (1 - share) / share)} left" if share >= _FIRST_SHARE else ""
        progress(f"{activity} ({_minutes(elapsed)} elapsed{left})", share)

    return report


def _minutes(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"

"""Whether a server may be given requests: what probes and requests found out, and how long a broken one is left.

Probes are active: a server that does not answer them is not used. Ejection is passive: one whose connections break
under requests is not used for a time that doubles with each time it happens, however well it answers probes meanwhile,
unless there is no other.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

FIRST_EJECTION_S: Final = 0.5
MAX_EJECTION_S: Final = 30.0
FORGIVEN_S: Final = 60.0
"""Ejections begin anew with the shortest after a server has been good for so long."""


class Health:
    """What is known of one server.

    Attributes:
        num_failed_probes: in a row, up to now.
        error: what went wrong last; empty while nothing has.
        error_time_s: when, in seconds since 1970.
    """

    def __init__(self, max_failed_probes: int, now: Callable[[], float], silent_after_s: float = float("inf")) -> None:
        """Begin in good faith: nobody has asked the server yet.

        Args:
            max_failed_probes: so many in a row say that the server does not answer.
            now: a clock in seconds.
            silent_after_s: one says so too, if nothing else has come from the server for so long.
        """
        self._max_failed_probes, self._silent_after_s = max_failed_probes, silent_after_s
        self._now = now
        self._silence_s = 0.0
        self._ejection_s = 0.0
        self._ejected_until_s = self._ejected_s = float("-inf")
        self._has_broken = False
        self.num_failed_probes = 0
        self.error, self.error_time_s = "", 0.0

    def use(self, max_failed_probes: int, silent_after_s: float) -> None:
        """Take other limits from now on."""
        self._max_failed_probes, self._silent_after_s = max_failed_probes, silent_after_s

    @property
    def is_good(self) -> bool:
        """Whether it may be given requests."""
        return self.answers and self._now() >= self._ejected_until_s

    @property
    def answers(self) -> bool:
        """Whether it has answered since it last broke: better than none, however long it is to be left alone."""
        return not self.num_failed_probes and not self._has_broken

    @property
    def is_silent(self) -> bool:
        """Whether it has been silent for so long that what it is working on must be given up.

        It has left several probes unanswered, or one while streams of tokens, too, brought nothing.
        """
        has_said_nothing = self.num_failed_probes > 0 and self._silence_s >= self._silent_after_s
        return has_said_nothing or self.num_failed_probes >= self._max_failed_probes

    def on_probe(self, error: str | None, silence_s: float = 0.0) -> None:
        """Take the answer to a probe.

        Args:
            error: None if it is ready, else what is wrong.
            silence_s: since when nothing has come from the server, on any stream.
        """
        self._silence_s = silence_s
        if error is None:
            self.num_failed_probes, self._has_broken = 0, False
        else:
            self.num_failed_probes += 1
            self._note(error)

    def on_broken(self, error: str) -> None:
        """Take note of a connection that broke, or could not be opened, under a request.

        Requests that break together are one failure. The server is used again after its time and a good probe.
        """
        now_s = self._now()
        self._note(error)
        if now_s < self._ejected_until_s:
            return
        if now_s - self._ejected_s > FORGIVEN_S:
            self._ejection_s = 0.0
        self._ejection_s = min(MAX_EJECTION_S, self._ejection_s * 2 or FIRST_EJECTION_S)
        self._ejected_s = now_s
        self._ejected_until_s = now_s + self._ejection_s * random.uniform(0.8, 1.2)
        self._has_broken = True

    def _note(self, error: str) -> None:
        self.error, self.error_time_s = error, time.time()

"""The answers in progress: who has gone, and how far apart the responses of a stream are to be."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from .answer import Answer
    from .engine_api import Generation
    from .settings import ServiceSettings


class LiveAnswers:
    """Every answer that an engine is working on or has waiting."""

    def __init__(self, settings: ServiceSettings, *, now: Callable[[], float] = time.monotonic) -> None:
        """Take the rules from `settings`; `now` is a clock in seconds."""
        self._spacing_s = settings.response_spacing_ms / 1000
        self._poll_s = settings.cancel_poll_ms / 1000
        self._max_polls = settings.max_batch_size
        self._now = now
        self._lock = threading.Lock()
        self._answers: deque[tuple[float, Answer, Generation]] = deque()  # next to be asked first
        self._num_streams = 0
        self._num_owed = 0.0  # questions that may be asked now, half a one for each answer and step

    def add(self, answer: Answer, generation: Generation) -> None:
        """Watch over an answer that was handed to the engine; from any thread."""
        with self._lock:
            self._answers.append((self._now() + self._poll_s, answer, generation))
            self._num_streams += answer.is_stream
            self._num_owed += 0.5  # one that is alone is asked after its first step

    def spacing_s(self) -> float:
        """Return the least time between two responses of a stream; grows with the number of streams.

        A response costs 0.3 to 0.6 ms of a processor whatever it carries (2 cores, Triton 2.51, 135M model). Spaced
        so, all responses together cost at most 2 to 4% however many streams there are; and one stream gets every token
        on its own unless tokens come faster than anybody reads.
        """
        return self._spacing_s * self._num_streams

    def on_step(self) -> None:
        """Forget what is done and cancel what nobody waits for; from the engine's thread, after each step.

        Asking takes at least 50 µs of a processor that the next step wants: so everybody is asked after every second
        step, half of them each time; no more than a full batch however many wait, and nobody too often.
        """
        now = self._now()
        with self._lock:
            self._answers = deque(entry for entry in self._answers if not entry[1].is_done)
            self._num_streams = sum(answer.is_stream for _, answer, _ in self._answers)
            self._num_owed = min(self._num_owed + len(self._answers) / 2, self._max_polls, len(self._answers))
            due: list[tuple[float, Answer, Generation]] = []
            while len(due) + 1 <= self._num_owed and self._answers[0][0] <= now:
                due.append(self._answers.popleft())
            self._num_owed -= len(due)
        for _, answer, generation in due:
            if answer.has_lost_client():
                generation.cancel()
            else:
                with self._lock:
                    self._answers.append((now + self._poll_s, answer, generation))

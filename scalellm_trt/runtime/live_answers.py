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

NUM_ALWAYS_ASKED = 4  # so few are asked after every step whether their clients have gone


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

    def add(self, answer: Answer, generation: Generation) -> None:
        """Watch over an answer that was handed to the engine; from any thread."""
        with self._lock:
            self._answers.append((self._now() + self._poll_s, answer, generation))
            self._num_streams += answer.is_stream

    def spacing_s(self) -> float:
        """Return the least time between two responses of a stream; grows with the number of streams.

        A response costs 0.3 to 0.6 ms of the time between two steps whatever it carries (2 cores, Triton 2.51, 135M
        model). Spaced so, all responses together cost at most 2 to 4% however many streams there are; and one stream
        gets every token on its own unless tokens come faster than anybody reads.
        """
        return self._spacing_s * self._num_streams

    def on_step(self) -> None:
        """Forget what is done and cancel what nobody waits for; from the engine's thread, after each step.

        Asking takes about 50 µs each, while nothing is computed: so of many half are asked after a step, the other half
        after the next one; no more than a full batch however many wait, and nobody too often.
        """
        now = self._now()
        with self._lock:
            self._answers = deque(entry for entry in self._answers if not entry[1].is_done)
            self._num_streams = sum(answer.is_stream for _, answer, _ in self._answers)
            max_polls = min(self._max_polls, max(NUM_ALWAYS_ASKED, -(-len(self._answers) // 2)))
            due: list[tuple[float, Answer, Generation]] = []
            while self._answers and len(due) < max_polls and self._answers[0][0] <= now:
                due.append(self._answers.popleft())
        for _, answer, generation in due:
            if answer.has_lost_client():
                generation.cancel()
            else:
                with self._lock:
                    self._answers.append((now + self._poll_s, answer, generation))

"""What one worker counts as it happens, and the last minute of it.

The hot path only adds to plain counters; once a second they are copied, and a minute is the difference of two copies.
"""

from __future__ import annotations

import itertools
import time
from array import array
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from scalellm_trt.gateway.ui.latency import NUM_BUCKETS, add, bucket

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

WINDOW_S: Final = 60
"""Seconds that a report covers, and points of its series: one a second."""
SLACK_S: Final = 2.0
"""A sample comes up to a second after the one before it is a minute old, or a little later on a busy machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LastError:
    """Why the server failed a request most recently.

    Attributes:
        time_s: when, in seconds since 1970.
    """

    message: str
    time_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How often, or how many. Requests are those that were sent to the server.

    Attributes:
        told_prompt_tokens: of prompts for which the engine said how much was in its KV cache.
        cached_tokens: of those, how many were.
        errors: requests that failed, by HTTP status.
        cancelled: requests whose client left.
    """

    requests: int = 0
    prompt_tokens: int = 0
    told_prompt_tokens: int = 0
    cached_tokens: int = 0
    generation_tokens: int = 0
    cancelled: int = 0
    errors: dict[str, int] = field(default_factory=dict)


class Live:
    """Counters of one worker since it started. To be used in one event loop."""

    __slots__ = (
        "cached_tokens", "cancelled", "clock", "errors", "gaps", "generation_tokens", "itl", "last_error",
        "prompt_tokens", "requests", "running", "told_prompt_tokens", "ttft",
    )  # fmt: skip

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin at zero; `clock` gives seconds that never go back."""
        self.clock = clock
        self.requests = self.prompt_tokens = self.told_prompt_tokens = self.cached_tokens = 0
        self.generation_tokens = self.cancelled = self.running = 0
        self.errors: dict[str, int] = {}
        self.ttft, self.itl = _no_latencies(), _no_latencies()
        self.gaps: list[float] = []
        self.last_error: LastError | None = None

    def begin(self, num_prompt_tokens: int) -> None:
        """Count a request that is sent to the server."""
        self.requests += 1
        self.running += 1
        self.prompt_tokens += num_prompt_tokens

    def end(self) -> None:
        """Count its end, however it came."""
        self.running -= 1

    def note_ttft(self, seconds: float) -> None:
        """Count the time from a request to its first text."""
        self.ttft[bucket(seconds)] += 1

    def note_cached(self, num_tokens: int, num_prompt_tokens: int) -> None:
        """Count a prompt of which the engine says that it had `num_tokens` already."""
        self.cached_tokens += num_tokens
        self.told_prompt_tokens += num_prompt_tokens

    def note_error(self, status: int) -> None:
        """Count a request that failed."""
        code = str(status)
        self.errors[code] = self.errors.get(code, 0) + 1

    def note_server_error(self, message: str) -> None:
        """Remember what the server did wrong last."""
        self.last_error = LastError(message=message, time_s=time.time())

    def settle(self) -> None:
        """Count the times from token to token that were noted in `gaps`."""
        gaps, self.gaps = self.gaps, []
        add(self.itl, gaps)

    def counts(self) -> Counts:
        """Return the counters as they are."""
        return Counts(
            requests=self.requests,
            prompt_tokens=self.prompt_tokens,
            told_prompt_tokens=self.told_prompt_tokens,
            cached_tokens=self.cached_tokens,
            generation_tokens=self.generation_tokens,
            cancelled=self.cancelled,
            errors=dict(self.errors),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """The last minute by seconds, oldest first; as long as the worker is old, at most 60.

    Attributes:
        requests, generation_tokens: each second's.
        running, waiting: at the end of each second.
    """

    requests: Sequence[float] = ()
    generation_tokens: Sequence[float] = ()
    running: Sequence[int] = ()
    waiting: Sequence[int] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One worker now, and its last minute.

    Attributes:
        age_s: since it started.
        window_s: what `minute` covers: 60 s, less at the beginning.
        ttft, itl: how many latencies by bucket, see `latency.bucket`.
    """

    age_s: float
    window_s: float
    running: int
    waiting: int
    connections: int
    total: Counts
    minute: Counts
    ttft: dict[int, int]
    itl: dict[int, int]
    series: Series
    last_error: LastError | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Copy:
    time_s: float
    counts: Counts
    ttft: array[int]
    itl: array[int]
    running: int
    waiting: int


class Window:
    """The last minute of `Live`, by copies of it that are made once a second."""

    def __init__(self, live: Live) -> None:
        """Begin now."""
        self._live = live
        self._started_s = live.clock()
        self._copies: deque[_Copy] = deque(maxlen=WINDOW_S + 1)
        self.sample(waiting=0)

    def sample(self, *, waiting: int) -> None:
        """Copy the counters; to be called once a second, a little earlier or later does no harm."""
        self._copies.append(self._copy(waiting))

    def report(self, *, waiting: int, connections: int) -> Report:
        """Return what is so now. `waiting` requests wait for their turn, `connections` to the server stand."""
        now = self._copy(waiting)
        # A process that was stopped for a while has copies from before: they say nothing of the last minute.
        oldest_s = now.time_s - WINDOW_S - SLACK_S
        copies = [copy for copy in self._copies if copy.time_s >= oldest_s] or [self._copies[-1]]
        first = copies[0]
        return Report(
            age_s=now.time_s - self._started_s,
            window_s=now.time_s - first.time_s,
            running=now.running,
            waiting=waiting,
            connections=connections,
            total=now.counts,
            minute=_difference(now.counts, first.counts),
            ttft=_added(now.ttft, first.ttft),
            itl=_added(now.itl, first.itl),
            series=_series(copies),
            last_error=self._live.last_error,
        )

    def _copy(self, waiting: int) -> _Copy:
        live = self._live
        live.settle()
        return _Copy(
            time_s=live.clock(),
            counts=live.counts(),
            ttft=live.ttft[:],
            itl=live.itl[:],
            running=live.running,
            waiting=waiting,
        )


def _no_latencies() -> array[int]:
    return array("Q", bytes(8 * NUM_BUCKETS))


def _difference(now: Counts, before: Counts) -> Counts:
    errors = {code: number - before.errors.get(code, 0) for code, number in now.errors.items()}
    return Counts(
        requests=now.requests - before.requests,
        prompt_tokens=now.prompt_tokens - before.prompt_tokens,
        told_prompt_tokens=now.told_prompt_tokens - before.told_prompt_tokens,
        cached_tokens=now.cached_tokens - before.cached_tokens,
        generation_tokens=now.generation_tokens - before.generation_tokens,
        cancelled=now.cancelled - before.cancelled,
        errors={code: number for code, number in errors.items() if number},
    )


def _added(now: array[int], before: array[int]) -> dict[int, int]:
    pairs = enumerate(zip(now, before, strict=True))
    return {number: new - old for number, (new, old) in pairs if new != old}


def _series(copies: Sequence[_Copy]) -> Series:
    requests, tokens = [], []
    for before, after in itertools.pairwise(copies):
        seconds = max(after.time_s - before.time_s, 1e-9)
        requests.append(round((after.counts.requests - before.counts.requests) / seconds, 3))
        tokens.append(round((after.counts.generation_tokens - before.counts.generation_tokens) / seconds, 3))
    return Series(
        requests=requests,
        generation_tokens=tokens,
        running=[copy.running for copy in copies[1:]],
        waiting=[copy.waiting for copy in copies[1:]],
    )

"""How many generations run at once, and who waits for a place: first come, first served, and nobody for long.

A place that is given back goes to the first who waits, before anybody who comes later.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, TypeVar

from scalellm_trt.gateway.errors import ApiError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from scalellm_trt.gateway.metrics import Metrics

Result = TypeVar("Result")


class Admission:
    """The places of one worker. To be used in one event loop."""

    def __init__(self, max_streams: int, max_queue_size: int, queue_timeout_s: float, metrics: Metrics) -> None:
        """Offer `max_streams` places and a queue."""
        self._num_free, self._max_streams = max_streams, max_streams
        self._max_queue_size, self._queue_timeout_s = max_queue_size, queue_timeout_s
        self._metrics = metrics
        self._queue: deque[asyncio.Future[None]] = deque()

    async def admitted(self, model: str, work: Callable[[], Awaitable[Result]]) -> Result:
        """Return what `work` returns, done once there is a place for it.

        Raises:
            ApiError: the queue is full (429), or no place became free in time (503).
        """
        started_s = time.monotonic()
        if self._num_free:
            self._num_free -= 1
        else:
            await self._wait(model)
        try:
            self._metrics.queue_time.labels(model).observe(time.monotonic() - started_s)
            return await work()
        finally:
            self._give_back()

    async def _wait(self, model: str) -> None:
        if len(self._queue) >= self._max_queue_size:
            message = (
                f"{self._max_streams} answers are being made and {len(self._queue)} requests wait; try again later"
            )
            raise ApiError(429, message, code="queue_full")
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(place)
        self._metrics.waiting.labels(model).inc()
        try:
            done, _ = await asyncio.wait([place], timeout=self._queue_timeout_s)
            if not done:
                message = f"no place became free within {self._queue_timeout_s:g} s; try again later"
                raise ApiError(503, message, code="queue_timeout")
        except BaseException:
            if place.done():
                # The place was given in the very moment in which the client left.
                self._give_back()
            else:
                self._queue.remove(place)
            raise
        finally:
            self._metrics.waiting.labels(model).dec()

    def _give_back(self) -> None:
        if self._queue:
            self._queue.popleft().set_result(None)
        else:
            self._num_free += 1

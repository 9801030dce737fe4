"""How many generations run at once, and who waits for a place: by `FairQueue`, and nobody for long.

A place that is given back goes to one who waits, before anybody who comes later. Without tenants that is the first.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, TypeVar

from scalellm_trt.gateway.errors import ApiError
from scalellm_trt.gateway.tenants.fair_queue import EVERYBODY, FairQueue, Turn

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from scalellm_trt.gateway.metrics import Metrics

Result = TypeVar("Result")


class Admission:
    """The places of one worker. To be used in one event loop.

    Attributes:
        queue: who waits.
    """

    def __init__(self, max_streams: int, max_queue_size: int, queue_timeout_s: float, metrics: Metrics) -> None:
        """Offer `max_streams` places and a queue."""
        self._num_free, self._max_streams = max_streams, max_streams
        self._max_queue_size, self._queue_timeout_s = max_queue_size, queue_timeout_s
        self._metrics = metrics
        self.queue = FairQueue()
        self._places: dict[Turn, asyncio.Future[None]] = {}

    @property
    def num_waiting(self) -> int:
        """How many wait for a place now."""
        return len(self.queue)

    async def admitted(self, model: str, work: Callable[[], Awaitable[Result]], turn: Turn | None = None) -> Result:
        """Return what `work` returns, done once there is a place for it.

        Args:
            model: what the time in the queue is counted for.
            work: is called once.
            turn: whose it is; None is everybody's.

        Raises:
            ApiError: the queue is full (429), or no place became free in time (503).
        """
        started_s = time.monotonic()
        if self._num_free:
            self._num_free -= 1
            if turn is not None:
                self.queue.let_in(turn)
        else:
            await self._wait(model, turn or Turn(flow=EVERYBODY, num_tokens=0))
        try:
            waited_s = time.monotonic() - started_s
            self._metrics.queue_time.labels(model).observe(waited_s)
            if turn is not None:
                self._metrics.tenant_queue_time.labels(turn.flow.name).observe(waited_s)
            return await work()
        finally:
            self._give_back()

    async def _wait(self, model: str, turn: Turn) -> None:
        if len(self.queue) >= self._max_queue_size:
            self._make_room(turn)
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.queue.push(turn)
        self._places[turn] = place
        self._metrics.waiting.labels(model).inc()
        try:
            done, _ = await asyncio.wait([place], timeout=self._queue_timeout_s)
            if not done:
                message = f"no place became free within {self._queue_timeout_s:g} s; try again later"
                raise ApiError(503, message, code="queue_timeout")
            place.result()
        except BaseException:
            if not place.done():
                self.queue.remove(turn)
            elif place.exception() is None:
                # The place was given in the very moment in which the client left.
                self._give_back()
            raise
        finally:
            self._places.pop(turn, None)
            self._metrics.waiting.labels(model).dec()

    def _give_back(self) -> None:
        if len(self.queue):
            self._places.pop(self.queue.pop()).set_result(None)
        else:
            self._num_free += 1

    def _make_room(self, turn: Turn) -> None:
        """Turn somebody away.

        Raises:
            ApiError: 429, it is whoever has `turn`.
        """
        message = f"{self._max_streams} answers are being made and {len(self.queue)} requests wait; try again later"
        full = ApiError(429, message, code="queue_full")
        displaced = self.queue.displaced(turn.flow)
        if displaced is None:
            raise full
        self._places.pop(displaced).set_exception(full)

"""An answer at once: messages from the server in, each answer's whole text out when all are complete."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scalellm_trt.gateway.answer_text import Delta
    from scalellm_trt.gateway.errors import ApiError
    from scalellm_trt.gateway.fleet.work import Servers
    from scalellm_trt.gateway.running import Running
    from scalellm_trt.gateway.upstream import Message


async def take(running: Running, servers: Servers) -> list[Delta]:
    """Return every answer.

    Raises:
        ApiError: the server does not answer, refuses, or fails.
    """
    with running.counted():
        listener = _Collector(running)
        await running.start(servers, listener)
        await listener.done
    return [listener.answers[index] for index in sorted(listener.answers)]


class _Collector:
    """Listens to a call and keeps its answers."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self.answers: dict[int, Delta] = {}
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def on_messages(self, messages: list[Message]) -> None:
        if self.done.done():
            return
        try:
            for index, delta in self._running.take(messages).items():
                before = self.answers.get(index)
                self.answers[index] = delta if before is None else before.then(delta)
        except Exception as error:
            self.done.set_exception(error)
            return
        if self._running.failure is not None:
            self.done.set_exception(self._running.failure)
        elif self._running.is_complete:
            self.done.set_result(None)

    def on_end(self, error: ApiError | None) -> None:
        wrong = self._running.end(error)
        if self.done.done():
            return
        if wrong is not None:
            self.done.set_exception(wrong)
        elif self._running.is_complete:
            self.done.set_result(None)

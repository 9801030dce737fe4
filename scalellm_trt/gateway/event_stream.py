"""An answer as it is made: messages from the server in, server-sent events out to the client.

What came in one read leaves in one write, in the call that brought it: no queue and no task between server and client.
Only when the client reads slower than the model writes does a task wait; the server's stream stands still meanwhile.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from scalellm_trt.gateway import sse
from scalellm_trt.gateway.answer_text import Delta
from scalellm_trt.gateway.send_now import try_now

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from starlette.types import Send

    from scalellm_trt.gateway.errors import ApiError
    from scalellm_trt.gateway.fleet.work import Servers
    from scalellm_trt.gateway.replies import StreamDialect
    from scalellm_trt.gateway.running import Running
    from scalellm_trt.gateway.upstream import Call, Message


class EventStream:
    """Listens to a call and writes its answer."""

    def __init__(
        self,
        send: Send,
        running: Running,
        dialect: StreamDialect,
        *,
        include_usage: bool,
        write: Callable[[bytes], bool] | None = None,
    ) -> None:
        """Prepare to answer through ASGI's `send`; nothing is sent before the first text.

        Args:
            send: ASGI's.
            running: the job.
            dialect: how its events look.
            include_usage: whether the last event before the end tells it.
            write: sends what stands between the first and the last of the events past ASGI; False when it cannot now.
        """
        self._send, self._running, self._dialect = send, running, dialect
        self._write_directly = write
        self._plain_frame: sse.Frame | None = None
        self._include_usage = include_usage
        self._call: Call | None = None
        self._has_begun = self._is_done = False
        self._seen: set[int] = set()
        self._unsent: Awaitable[None] | None = None
        self._failure: Exception | None = None
        self._woken = asyncio.Event()

    async def run(self, servers: Servers) -> None:
        """Answer to the end.

        Raises:
            ApiError: before the first event, so that the error still has its status.
        """
        with self._running.counted():
            self._call = await self._running.start(servers, self)
            if self._running.is_plain:
                self._call.hurry(self)
            while self._unsent is not None or not self._is_done:
                if self._unsent is None:
                    await self._woken.wait()
                    self._woken.clear()
                else:
                    unsent, self._unsent = self._unsent, None
                    await unsent
                    self._call.resume()
            if self._failure is not None:
                raise self._failure

    def on_messages(self, messages: list[Message]) -> None:
        """See `Listener`."""
        if self._is_done:
            return
        try:
            found = self._running.take(messages)
            events = [sse.event(self._chunk(index, found[index])) for index in found]
            if self._running.is_complete:
                self._finish(events)
            elif self._running.failure is not None:
                self._fail(self._running.failure, events)
            elif events:
                self._write(b"".join(events))
        except Exception as error:
            self._end(error)

    def last_token(self) -> int | None:
        """See `Express`."""
        return self._running.last_token if self._has_begun and not self._is_done else None

    def on_tokens(self, token_ids: Sequence[int]) -> bool:
        """See `Express`."""
        if self._is_done:
            return True
        try:
            text = self._running.take_tokens(token_ids)
            if text:
                body = (self._plain_frame or self._frame()).around(text)
                if self._write_directly is None or not self._write_directly(body):
                    self._write(body)
        except Exception as error:
            self._end(error)
            return True
        return text is not None

    def on_end(self, error: ApiError | None) -> None:
        """See `Listener`."""
        wrong = self._running.end(error)
        if self._is_done:
            return
        if wrong is not None:
            self._fail(wrong, [])
        elif self._running.is_complete:
            self._finish([])

    def _chunk(self, index: int, delta: Delta) -> object:
        is_first = index not in self._seen
        if is_first:
            self._seen.add(index)
        return self._dialect.chunk(index, delta, is_first=is_first)

    def _frame(self) -> sse.Frame:
        """Return what stands around the text of each event between the first and the last."""
        if self._plain_frame is None:
            delta = Delta(text=sse.MARK, tokens=(), finish_reason=None)
            self._plain_frame = sse.Frame(self._dialect.chunk(0, delta, is_first=False))
        return self._plain_frame

    def _finish(self, events: list[bytes]) -> None:
        self._running.note_told()
        if self._include_usage:
            events.append(sse.event(self._dialect.usage_chunk(self._running.usage)))
        events.append(sse.DONE)
        self._write(b"".join(events), is_last=True)
        self._end()

    def _fail(self, error: ApiError, events: list[bytes]) -> None:
        if not self._has_begun and not events:
            self._end(error)
            return
        self._running.note_told()
        self._running.note_failed(error)
        self._write(b"".join((*events, sse.event(error.body()))), is_last=True)
        self._end()

    def _end(self, failure: Exception | None = None) -> None:
        self._failure, self._is_done = failure, True
        self._woken.set()

    def _write(self, body: bytes, *, is_last: bool = False) -> None:
        is_between = self._has_begun and not is_last
        if is_between and self._write_directly is not None and self._write_directly(body):
            return
        unsent = try_now(self._send_part(body, is_last=is_last))
        if unsent is not None:
            assert self._call is not None
            self._unsent = unsent
            self._call.pause()
            self._woken.set()

    async def _send_part(self, body: bytes, *, is_last: bool) -> None:
        if not self._has_begun:
            self._has_begun = True
            await self._send({"type": "http.response.start", "status": 200, "headers": list(sse.HEADERS)})
        await self._send({"type": "http.response.body", "body": body, "more_body": not is_last})

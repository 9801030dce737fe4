"""One generation over as many servers as it takes: begun anew while nothing has come, continued when something has.

The listener notices nothing: it gets the messages of one call after the other, and one end.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final, Literal, Protocol

from scalellm_trt.gateway import request_log
from scalellm_trt.gateway.errors import ApiError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from scalellm_trt.gateway.express import Express
    from scalellm_trt.gateway.fleet.member import Member
    from scalellm_trt.gateway.fleet.work import Work
    from scalellm_trt.gateway.upstream import Call, Listener, Message

Event = Literal["retried", "continued", "lost"]
BROKEN: Final = "upstream_unavailable"
ELSEWHERE: Final = frozenset({BROKEN, "model_not_loaded", "overloaded"})
"""Codes of errors that say nothing against the request: another server may take it. An INTERNAL is none of them: a C++
engine answers every refusal with it, and a request that breaks engines must not be passed round."""


class Choice(Protocol):
    """What attempts need of the fleet.

    Attributes:
        max_attempts: servers that one request may be sent to.
        wait_s: how long a request that has lost its server waits for another one.
        continues_sampled: sampled answers are continued too.
    """

    max_attempts: int
    wait_s: float
    continues_sampled: bool

    async def pick(self, work: Work, refused: Collection[Member], deadline_s: float) -> Member | None:
        """Return a server for `work`, none of `refused`; None if there is none until the deadline."""
        ...

    def note(self, event: Event, member: Member) -> None:
        """Count what happened to a request of a server that broke."""
        ...


class Attempts:
    """A `Call` for the listener over the calls to one server after the other.

    Attributes:
        listener: gets the messages.
        server_url: where the last call went.
    """

    def __init__(self, servers: Choice, work: Work, listener: Listener, metadata: Sequence[tuple[str, str]]) -> None:
        """Prepare; `begin` sends."""
        self._servers, self._work, self._metadata = servers, work, metadata
        self.listener = listener
        self.server_url: str | None = None
        self._call: Call | None = None
        self._ear: _Ear | None = None
        self._member: Member | None = None
        self._num_attempts = 0
        self._refused: list[Member] = []
        self._is_over = self._is_paused = False
        self._task: asyncio.Task[None] | None = None
        self._express: Express | None = None

    async def begin(self, deadline_s: float = 0.0, error: ApiError | None = None) -> None:
        """Send what is left to a server, or to the next one if that is not there.

        Args:
            deadline_s: how long to wait for a server that is ready, by `time.monotonic`.
            error: what the last server said, if one was asked.

        Raises:
            ApiError: no server takes it; says what the last one said.
        """
        while self._num_attempts < self._servers.max_attempts:
            member = await self._servers.pick(self._work, self._refused, deadline_s)
            if member is None:
                break
            self._num_attempts += 1
            self._enter(member)
            self._ear = _Ear(self)
            try:
                self._call = await member.upstream.start(self._work.request(), self._ear, self._metadata)
            except ApiError as failure:
                self._leave(failure)
                if failure.code not in ELSEWHERE:
                    raise
                error = failure
            except BaseException:
                self._leave(None)
                raise
            else:
                if self._express is not None:
                    self._call.hurry(self._express)
                return
        # Made here and not once for all: an exception that is raised again keeps every place where it was.
        raise error or ApiError(503, "no server of the model is ready; try again later", code=BROKEN)

    def cancel(self) -> None:
        """See `Call`."""
        if self._is_over:
            return
        self._is_over = True
        if self._task is not None:
            self._task.cancel()
        if self._call is not None:
            self._call.cancel()
        self._leave(None)

    def pause(self) -> None:
        """See `Call`."""
        self._is_paused = True
        if self._call is not None:
            self._call.pause()

    def resume(self) -> None:
        """See `Call`."""
        self._is_paused = False
        if self._call is not None:
            self._call.resume()

    def hurry(self, express: Express | None) -> None:
        """See `Call`."""
        self._express = express
        if self._call is not None:
            self._call.hurry(express)

    def on_error_text(self, messages: list[Message]) -> None:
        """Take messages of which the last one is an error."""
        if messages[:-1]:
            self.listener.on_messages(messages[:-1])
        # What came may have been all that was wanted.
        if not self._is_over and not self._goes_elsewhere(self._work.refusal(messages[-1].error_message)):
            self.listener.on_messages(messages[-1:])

    def on_end(self, error: ApiError | None) -> None:
        """See `Listener`."""
        if self._is_over or (error is not None and self._goes_elsewhere(error)):
            return
        self._is_over = True
        self._leave(error)
        self.listener.on_end(error)

    def _goes_elsewhere(self, error: ApiError) -> bool:
        """Look for another server after a failure, if one may help; what the broken call still says is not heard."""
        is_hopeless = error.code not in ELSEWHERE or self._num_attempts >= self._servers.max_attempts
        if is_hopeless or self._work.is_done:
            return False
        lost, reason = self._member, self._why_not_continued()
        assert lost is not None
        has_begun = self._work.has_begun
        self._servers.note("lost" if reason else "continued" if has_begun else "retried", lost)
        fields = {"server": lost.name, "error": error.message, "has_begun": has_begun, "not_continued": reason}
        fields["sampled"] = self._work.is_sampled  # then it goes on, but not as it would have
        request_log.LOGGER.warning("a server lost a request", extra={"fields": fields})
        if reason is not None:
            return False
        self._leave(error)
        if self._call is not None:
            self._call.hurry(None)
        self._call, self._ear = None, None
        self._task = asyncio.get_running_loop().create_task(self._again(error))
        return True

    def _why_not_continued(self) -> str | None:
        if not self._work.has_begun:
            return None
        if self._work.is_sampled and not self._servers.continues_sampled:
            return "its tokens are sampled"
        return self._work.why_not_continued()

    async def _again(self, error: ApiError) -> None:
        # An answer that has begun is worth waiting for; who has seen nothing yet can try again.
        deadline_s = time.monotonic() + self._servers.wait_s if self._work.has_begun else 0.0
        try:
            await self.begin(deadline_s, error)
        except ApiError as failure:
            error = failure
        else:
            if self._is_paused and self._call is not None:
                self._call.pause()
            return
        if not self._is_over:
            self._is_over = True
            self.listener.on_end(error)

    def is_heard(self, ear: _Ear) -> bool:
        """Return whether what comes by `ear` still counts."""
        return ear is self._ear

    def _enter(self, member: Member) -> None:
        self._member, self.server_url = member, member.options.url
        member.begin(self._work.num_tokens)

    def _leave(self, error: ApiError | None) -> None:
        member, self._member = self._member, None
        if member is None:
            return
        member.end(self._work.num_tokens)
        if error is not None and error.code == BROKEN:
            member.health.on_broken(error.message)
        elif error is not None:
            self._refused.append(member)


class _Ear:
    """The `Listener` of one call. A call that was given up is no longer heard, whatever it has to say."""

    __slots__ = ("_attempts",)

    def __init__(self, attempts: Attempts) -> None:
        self._attempts = attempts

    def on_messages(self, messages: list[Message]) -> None:
        attempts = self._attempts
        if not attempts.is_heard(self):
            return
        if messages[-1].error_message:  # which is the last thing in a stream
            attempts.on_error_text(messages)
        else:
            attempts.listener.on_messages(messages)

    def on_end(self, error: ApiError | None) -> None:
        if self._attempts.is_heard(self):
            self._attempts.on_end(error)

"""Ask every server each second whether it is ready, and what it has loaded; sooner one whose streams stand still."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from scalellm_trt.gateway import request_log
from scalellm_trt.gateway.errors import ApiError

if TYPE_CHECKING:
    from collections.abc import Callable

    from scalellm_trt.gateway.fleet.member import Member
    from scalellm_trt.gateway.metrics import Metrics
    from scalellm_trt.gateway.options import RoutingOptions

HASTE: Final = 4
"""A server that did not answer is asked so many times as often."""
LOOK_S: Final = 0.25
"""How often it is looked at whether a server's streams stand still."""
LEAST_TIMEOUT_S: Final = 0.1
OWN_PAUSE_S: Final = 0.25
"""If an answer is missed so much later than it was due, this process was away, not the server."""


class Prober:
    """A task for each server."""

    def __init__(self, options: RoutingOptions, metrics: Metrics, on_probe: Callable[[Member], None]) -> None:
        """Prepare to ask; `on_probe` is told of each answer once the member's health knows it."""
        self._options, self._metrics, self._on_probe = options, metrics, on_probe
        self._tasks: dict[Member, asyncio.Task[None]] = {}

    def use(self, options: RoutingOptions) -> None:
        """Ask as `options` say from now on."""
        self._options = options

    def watch(self, member: Member) -> None:
        """Ask a server from now on."""
        self._tasks[member] = asyncio.get_running_loop().create_task(self._watch(member))

    def forget(self, member: Member) -> None:
        """Ask it no more."""
        self._tasks.pop(member).cancel()
        self._metrics.backend_up.remove(member.options.url)

    def close(self) -> None:
        """Ask nobody any more."""
        for task in self._tasks.values():
            task.cancel()

    async def ask(self, member: Member) -> bool:
        """Ask once, and let the member's health know; return whether it is ready."""
        timeout_s, asked_s = self._timeout_s(member), time.monotonic()
        error = await self._problem(member, timeout_s)
        if error is not None and time.monotonic() - asked_s > timeout_s + OWN_PAUSE_S:
            return member.health.is_good  # nobody knows
        before = member.health.is_good
        member.health.on_probe(error, _silence_s(member))
        self._metrics.backend_up.labels(member.options.url).set(error is None)
        if member.health.is_good != before:
            fields = {"server": member.name, "good": member.health.is_good, "error": error}
            request_log.LOGGER.info("server", extra={"fields": fields})
        self._on_probe(member)
        return error is None

    async def _watch(self, member: Member) -> None:
        while True:
            pause_s = self._options.probe_interval_s
            if await self.ask(member):
                await self._learn_models(member)
            else:
                pause_s = self._short_pause_s(pause_s / HASTE, member)  # what it is working on waits to know
            until_s = time.monotonic() + pause_s
            while (left_s := until_s - time.monotonic()) > 0 and not self._stands_still(member):
                await asyncio.sleep(min(left_s, LOOK_S))

    def _stands_still(self, member: Member) -> bool:
        """Return whether a server that answers has requests of ours, and has said nothing for half of what it may."""
        is_doubtful = _silence_s(member) >= self._options.silent_after_s / 2
        return is_doubtful and member.health.answers and bool(member.num_own_running)

    def _timeout_s(self, member: Member) -> float:
        """Return how long to wait for an answer: not beyond the moment at which a server has been silent too long.

        One that had nothing to say before, for it was not asked, has its whole time; so has one that was given up.
        """
        timeout_s, left_s, health = self._options.probe_timeout_s, self._patience_s(member), member.health
        is_due = left_s <= 0 and health.num_failed_probes > 0 and not health.is_silent
        return max(min(timeout_s, left_s), LEAST_TIMEOUT_S) if left_s > 0 or is_due else timeout_s

    def _short_pause_s(self, pause_s: float, member: Member) -> float:
        """Return how long to wait before the next question to a server that has left one unanswered."""
        left_s = self._patience_s(member)
        return left_s if 0 < left_s < pause_s else pause_s

    def _patience_s(self, member: Member) -> float:
        """Return when a server will have been silent too long."""
        return self._options.silent_after_s - _silence_s(member)

    async def _problem(self, member: Member, timeout_s: float) -> str | None:
        from tritonclient.grpc import service_pb2

        try:
            answer = await member.upstream.unary("ServerReady", service_pb2.ServerReadyRequest(), timeout_s)
        except ApiError as error:
            return error.message
        return None if answer.ready else "the server is not ready"

    async def _learn_models(self, member: Member) -> None:
        from tritonclient.grpc import service_pb2

        request = service_pb2.RepositoryIndexRequest(ready=True)
        try:
            answer = await member.upstream.unary("RepositoryIndex", request, self._options.probe_timeout_s)
        except ApiError:
            return  # what was known stays; a server that is gone shows at the next probe
        # A server that is ready and lists nothing does not tell what it has: it is asked for everything then.
        member.models = frozenset(model.name for model in answer.models if model.state == "READY") or None


def _silence_s(member: Member) -> float:
    """Return since when nothing has come from a server; 0 where its connections do not tell."""
    received_s = member.upstream.last_received_s()
    return 0.0 if received_s is None else time.monotonic() - received_s

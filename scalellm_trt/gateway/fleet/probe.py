"""Ask every server each second whether it is ready, and what it has loaded."""

from __future__ import annotations

import asyncio
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
        error = await self._problem(member)
        before = member.health.is_good
        member.health.on_probe(error)
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
                pause_s /= HASTE  # what it is working on waits to know
            await asyncio.sleep(pause_s)

    async def _problem(self, member: Member) -> str | None:
        from tritonclient.grpc import service_pb2

        try:
            answer = await member.upstream.unary(
                "ServerReady", service_pb2.ServerReadyRequest(), self._options.probe_timeout_s
            )
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

"""The servers behind a gateway as one: requests are shared out, broken servers passed over, new ones taken in."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from scalellm_trt.gateway import request_log, upstreams
from scalellm_trt.gateway.errors import ApiError
from scalellm_trt.gateway.fleet import discovery, policies
from scalellm_trt.gateway.fleet.attempts import BROKEN, Attempts
from scalellm_trt.gateway.fleet.draining import Draining
from scalellm_trt.gateway.fleet.groups import GroupSwitch
from scalellm_trt.gateway.fleet.health import Health
from scalellm_trt.gateway.fleet.member import Member
from scalellm_trt.gateway.fleet.probe import Prober

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from scalellm_trt.gateway.fleet.attempts import Event
    from scalellm_trt.gateway.fleet.server_load import ServerLoad
    from scalellm_trt.gateway.fleet.work import Work
    from scalellm_trt.gateway.metrics import Metrics
    from scalellm_trt.gateway.options import GatewayOptions, RoutingOptions, ServerOptions
    from scalellm_trt.gateway.upstream import Listener, Message

DRAIN_LOOK_S = 0.1


class Fleet:
    """The servers. To be used and closed in one event loop.

    Attributes:
        max_attempts, wait_s, continues_sampled: see `attempts.Choice`.
    """

    def __init__(
        self, options: GatewayOptions, metrics: Metrics, load_of: Callable[[str], ServerLoad] | None = None
    ) -> None:
        """Begin with the servers that `options` name, and ask them whether they are ready.

        `load_of` says what all workers do at an address; None where this one is alone.
        """
        self._load_of = load_of
        routing = options.routing
        self._options, self._metrics = options, metrics
        self._policy = policies.make(routing)
        self._groups = None if routing.groups is None else GroupSwitch(routing.groups)
        self._take_limits(routing)
        self._changed = asyncio.Event()
        self._prober = Prober(routing, metrics, self._on_probe)
        shared = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
        self._draining = Draining(None if shared is None else Path(shared))
        self._leaving: set[asyncio.Task[None]] = set()
        self.members: list[Member] = []
        for server in options.servers:
            self._add(server)
        self._following: asyncio.Task[None] | None = None
        self._follow()

    async def start(self, work: Work, listener: Listener, metadata: Sequence[tuple[str, str]] = ()) -> Attempts:
        """See `work.Servers`."""
        attempts = Attempts(self, work, listener, metadata)
        await attempts.begin()
        return attempts

    async def pick(self, work: Work, refused: Collection[Member], deadline_s: float) -> Member | None:
        """See `attempts.Choice`. Where none answers and nothing may be waited for, one is tried all the same."""
        while True:
            able = [member for member in self.members if self._may_have(member, work.model) and member not in refused]
            good = [member for member in able if member.health.is_good]
            good = good or [member for member in able if member.health.answers]
            if good:
                return self._policy.choose(self._of_group(good), work.input_ids)
            left_s = deadline_s - time.monotonic()
            if left_s <= 0 or not able:
                return self._policy.choose(able, work.input_ids) if able else None
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), left_s)
            except asyncio.TimeoutError:
                continue

    def note(self, event: Event, member: Member) -> None:
        """See `attempts.Choice`."""
        self._metrics.failovers.labels(member.name, event).inc()

    async def unary(self, method: str, request: Message, timeout_s: float) -> Message:
        """Ask a server that is good, else each until one answers; as `Upstream.unary`."""
        error = ApiError(503, "there is no server", code=BROKEN)
        for member in sorted(self.members, key=lambda member: not member.health.is_good):
            try:
                return await member.upstream.unary(method, request, timeout_s)
            except ApiError as failure:
                if failure.code != BROKEN:
                    raise
                error = failure
        raise error

    async def is_ready(self) -> bool:
        """Ask whether one of the servers is ready."""
        answers = [asyncio.ensure_future(self._prober.ask(member)) for member in self.members]
        try:
            for answer in asyncio.as_completed(answers):
                if await answer:
                    return True
            return False
        finally:
            for task in answers:
                task.cancel()

    def num_connections(self) -> int:
        """Return how many connections stand, to all servers."""
        return sum(member.upstream.num_connections() for member in self.members)

    def drain(self, name: str, *, is_draining: bool = True) -> bool:
        """Give a server no new requests, or give it some again; return whether there is one of that name."""
        if name not in [member.name for member in self.members]:
            return False
        self._draining.put(name, is_draining=is_draining)
        self.look_at_draining()
        return True

    def look_at_draining(self) -> None:
        """Hold to what an operator has said to this worker or another one; to be called once a second."""
        names = self._draining.names
        for member in self.members:
            is_draining = member.name in names
            if member.is_draining != is_draining:
                member.is_draining = is_draining
                request_log.LOGGER.info("server", extra={"fields": {"server": member.name, "draining": is_draining}})
                self._changed.set()

    def use(self, options: GatewayOptions) -> None:
        """Take other servers, routing and discovery from now on; requests that run go on as they began.

        What has not changed keeps what it knows: a policy its beginnings, a server its health and load, discovery the
        servers that it has found.
        """
        before, self._options = self._options, options
        routing = options.routing
        if policies.signature(routing) != policies.signature(before.routing):
            self._policy = policies.make(routing)
        if routing.groups != before.routing.groups:
            self._groups = None if routing.groups is None else GroupSwitch(routing.groups)
        self._take_limits(routing)
        self._prober.use(routing)
        for member in self.members:
            member.health.use(routing.max_failed_probes, routing.silent_after_s)
        if options.servers and (options.servers, options.discovery) != (before.servers, before.discovery):
            self.set_servers(options.servers)
        if options.discovery != before.discovery:
            self._follow()

    def set_servers(self, servers: Sequence[ServerOptions]) -> None:
        """Take other servers from now on: new ones join, missing ones leave once their requests have ended.

        A server whose weight or group alone is another stays as it is.
        """
        for member in self.members:
            same = [server for server in servers if (server.name, server.url) == (member.name, member.options.url)]
            member.options = same[0] if same else member.options
        for member in [member for member in self.members if member.options not in servers]:
            self.members.remove(member)
            task = asyncio.get_running_loop().create_task(self._see_off(member))
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)
        known = [member.options for member in self.members]
        for server in servers:
            if server not in known:
                self._add(server)
        self._changed.set()

    async def close(self) -> None:
        """End every connection; what still runs is cancelled."""
        self._prober.close()
        if self._following is not None:
            self._following.cancel()
        for task in self._leaving:
            task.cancel()
        await asyncio.gather(*self._leaving, return_exceptions=True)
        for member in self.members:
            await member.upstream.close()

    def _take_limits(self, routing: RoutingOptions) -> None:
        self.max_attempts, self.wait_s = routing.max_attempts, routing.wait_s
        self.continues_sampled = routing.continue_sampled

    def _follow(self) -> None:
        """Look for servers where the options say, and no longer where they said."""
        if self._following is not None:
            self._following.cancel()
            self._following = None
        found = discovery.source(self._options.discovery)
        if found is not None:
            known = [member.options for member in self.members]
            follow = discovery.follow(found, self._options.discovery.interval_s, known, self.set_servers)
            self._following = asyncio.get_running_loop().create_task(follow)

    def _add(self, server: ServerOptions) -> None:
        routing = self._options.routing
        health = Health(routing.max_failed_probes, time.monotonic, routing.silent_after_s)
        load = None if self._load_of is None else self._load_of(server.url)
        member = Member(server, upstreams.make(self._options, server.url), health, load)
        self.members.append(member)
        self._prober.watch(member)

    async def _see_off(self, member: Member) -> None:
        """Wait until a server that left has nothing to do for us any more."""
        self._prober.forget(member)
        try:
            while member.num_own_running:
                await asyncio.sleep(DRAIN_LOOK_S)
        finally:
            await member.upstream.close()
        request_log.LOGGER.info("a server has left", extra={"fields": {"server": member.name}})

    def _may_have(self, member: Member, model: str) -> bool:
        return not member.is_draining and member.has(model)

    def _of_group(self, good: Sequence[Member]) -> Sequence[Member]:
        if self._groups is None or len(good) == 1:
            return good
        return self._groups.of(good, sum(member.num_running for member in self.members))

    def _on_probe(self, member: Member) -> None:
        """Let those that wait look again; take from a silent server what others can do."""
        if member.health.answers:
            self._changed.set()
        elif member.health.is_silent and member.num_own_running and any(other.health.answers for other in self.members):
            reason = f"the model's server at {member.options.url} does not answer: {member.health.error}"
            member.upstream.abandon(reason)

"""Servers that are a formula each, and clients that ask one request after the other; the gateway's own code chooses.

Time is simulated. A server reads one prompt after the other, and shares its speed evenly among the requests that
it makes tokens for. Groups, hysteresis and policy are those of `scalellm_trt.gateway.fleet`.
"""

from __future__ import annotations

import heapq
import itertools
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from scalellm_trt.gateway.fleet import policies
from scalellm_trt.gateway.fleet.groups import GroupSwitch
from scalellm_trt.gateway.fleet.health import Health
from scalellm_trt.gateway.fleet.member import Member
from scalellm_trt.gateway.options import RoutingOptions, ServerOptions
from scripts.benchmarks.sides.ramp import Seen

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from scripts.benchmarks.sides.server_shapes import Shape

PROMPT = [0] * 512


@dataclass(slots=True, eq=False)
class _Server:
    """One server: `made_tokens` is what each request that it works on has got since the beginning of time."""

    member: Member
    shape: Shape
    made_tokens: float = 0.0
    looked_s: float = 0.0
    free_s: float = 0.0
    version: int = 0
    ends: list[tuple[float, int, _Request]] = field(default_factory=list)

    def look(self, now_s: float) -> None:
        """Let the time from the last look to now pass."""
        if self.ends:
            speed = self.shape.tokens_per_s(len(self.ends)) / len(self.ends)
            self.made_tokens += (now_s - self.looked_s) * speed
        self.looked_s = now_s

    def next_end_s(self) -> float:
        """Return when the next request ends if none comes before."""
        speed = self.shape.tokens_per_s(len(self.ends)) / len(self.ends)
        return self.looked_s + max(0.0, self.ends[0][0] - self.made_tokens) / speed


@dataclass(slots=True, kw_only=True, eq=False)
class _Request:
    client: int
    sent_s: float
    num_tokens: int
    first_token_s: float = 0.0


class SimulatedFleet:
    """A gateway's view of simulated servers, and clients that come and go by a schedule.

    Attributes:
        done: every request that has ended.
        switches: when the traffic went to the other group, and whether that is the one for many.
        concurrency: (when, requests at all servers) at each beginning and end.
    """

    def __init__(self, groups: Mapping[str, Sequence[Shape]], routing: RoutingOptions, *, seed: int = 1) -> None:
        """Take a shape for each server of each group."""
        self._servers: dict[Member, _Server] = {}
        upstream: Any = None  # nothing is sent
        for group, shapes in groups.items():
            for index, shape in enumerate(shapes):
                options = ServerOptions(name=f"{group}{index}", url=f"{group}{index}:8001", group=group)
                member = Member(options, upstream, Health(3, lambda: 0.0))
                self._servers[member] = _Server(member, shape)
        self._policy = policies.make(routing)
        self._switch = None if routing.groups is None else GroupSwitch(routing.groups)
        self._random = random.Random(seed)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._now_s = 0.0
        self._num_running = 0
        self.done: list[Seen] = []
        self.switches: list[tuple[float, bool]] = []
        self.concurrency: list[tuple[float, int]] = []

    def run(
        self, wanted: Callable[[float], int], until_s: float, *, tokens: tuple[int, int], think_s: float = 0.0
    ) -> None:
        """Let `wanted(t)` clients ask at time t, until `until_s`.

        Args:
            wanted: how many.
            until_s: what is open then is not counted.
            tokens: the least and the most of an answer.
            think_s: mean pause of a client before it asks again, exponentially distributed.
        """
        active: set[int] = set()

        def ask(client: int) -> None:
            if client >= wanted(self._now_s):
                active.discard(client)
                return
            self._send(_Request(client=client, sent_s=self._now_s, num_tokens=self._random.randint(*tokens)))

        def again(client: int) -> None:
            pause_s = self._random.expovariate(1 / think_s) if think_s else 0.0
            self._at(self._now_s + pause_s, lambda: ask(client))

        def look() -> None:
            for client in range(wanted(self._now_s)):
                if client not in active:
                    active.add(client)
                    again(client)
            self._at(self._now_s + 0.1, look)

        self._on_end = again
        self._at(0.0, look)
        while self._events and self._events[0][0] < until_s:
            self._now_s, _, action = heapq.heappop(self._events)
            action()

    def _at(self, when_s: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when_s, next(self._numbers), action))

    def _send(self, request: _Request) -> None:
        members: Sequence[Member] = list(self._servers)
        if self._switch is not None:
            before = self._switch.is_busy
            members = self._switch.of(members, self._num_running)
            if self._switch.is_busy != before:
                self.switches.append((self._now_s, self._switch.is_busy))
        member = self._policy.choose(members, PROMPT)
        member.begin(len(PROMPT) + request.num_tokens)
        self._count(1)
        server = self._servers[member]
        server.free_s = max(server.free_s, self._now_s) + server.shape.first_token_s
        self._at(server.free_s, lambda: self._begin(server, request))

    def _begin(self, server: _Server, request: _Request) -> None:
        """The prompt has been read: the first token is there."""
        request.first_token_s = self._now_s
        server.look(self._now_s)
        end = (server.made_tokens + request.num_tokens - 1, next(self._numbers), request)
        heapq.heappush(server.ends, end)
        self._plan(server)

    def _plan(self, server: _Server) -> None:
        server.version += 1
        version = server.version
        if server.ends:
            self._at(server.next_end_s(), lambda: self._end(server, version))

    def _end(self, server: _Server, version: int) -> None:
        if version != server.version:
            return  # another request has come or gone since this was planned
        server.look(self._now_s)
        _, _, request = heapq.heappop(server.ends)
        server.member.end(len(PROMPT) + request.num_tokens)
        self._count(-1)
        self.done.append(
            Seen(
                sent_s=request.sent_s,
                first_token_s=request.first_token_s,
                ended_s=self._now_s,
                num_tokens=request.num_tokens,
                group=server.member.options.group or "",
            )
        )
        self._plan(server)
        self._on_end(request.client)

    def _count(self, change: int) -> None:
        self._num_running += change
        self.concurrency.append((self._now_s, self._num_running))

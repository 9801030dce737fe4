"""A server whose streams stand still is asked at once, and given up soon; our own pauses are not held against it."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from scalellm_trt.gateway.errors import ApiError
from scalellm_trt.gateway.fleet.health import Health
from scalellm_trt.gateway.fleet.member import Member
from scalellm_trt.gateway.fleet.probe import Prober
from scalellm_trt.gateway.metrics import Metrics
from scalellm_trt.gateway.options import RoutingOptions, ServerOptions


class Deaf:
    """A server that never answers; it has been silent for `silence_s` when a question begins."""

    def __init__(self, silence_s: float, own_pause_s: float = 0.0) -> None:
        self.own_pause_s = own_pause_s
        self.received_s = time.monotonic() - silence_s
        self.timeouts_s: list[float] = []

    async def unary(self, method: str, request: object, timeout_s: float) -> Any:
        self.timeouts_s.append(timeout_s)
        self.received_s -= timeout_s
        time.sleep(self.own_pause_s)
        raise ApiError(503, "no answer")

    def last_received_s(self) -> float:
        return self.received_s


def _asked(server: Deaf, options: RoutingOptions, num_running: int = 1) -> Member:
    async def ask() -> Member:
        upstream: Any = server
        health = Health(3, time.monotonic, options.silent_after_s)
        member = Member(ServerOptions(name="s", url="h:1"), upstream, health)
        for _ in range(num_running):
            member.begin(1)
        prober = Prober(options, Metrics(), lambda member: None)
        is_silent = time.monotonic() - server.received_s >= options.silent_after_s / 2
        assert prober._stands_still(member) is (num_running > 0 and is_silent)
        await prober.ask(member)
        return member

    return asyncio.run(ask())


def test_a_question_ends_when_the_server_has_been_silent_for_too_long() -> None:
    server = Deaf(1.4)
    assert _asked(server, RoutingOptions()).health.is_silent
    assert 0.5 < server.timeouts_s[0] < 0.61


def test_a_second_question_takes_no_longer_than_there_is_patience() -> None:
    async def ask() -> tuple[list[float], bool]:
        server = Deaf(0.6)
        upstream: Any = server
        health = Health(3, time.monotonic, 2.0)
        member = Member(ServerOptions(name="s", url="h:1"), upstream, health)
        prober = Prober(RoutingOptions(), Metrics(), lambda member: None)
        await prober.ask(member)
        assert not health.is_silent  # for some time yet
        server.received_s = time.monotonic() - 2.001
        await prober.ask(member)
        is_silent = health.is_silent
        await prober.ask(member)
        # Nobody waits for one that was given up.
        assert prober._short_pause_s(0.25, member) == 0.25
        return server.timeouts_s, is_silent

    assert asyncio.run(ask()) == ([1.0, 0.1, 1.0], True)


def test_a_server_that_has_just_spoken_has_its_whole_time() -> None:
    server = Deaf(0.1)
    member = _asked(server, RoutingOptions())
    assert (server.timeouts_s, member.health.is_good, member.health.is_silent) == ([1.0], False, False)


def test_an_idle_server_is_asked_in_its_turn() -> None:
    _asked(Deaf(1.5), RoutingOptions(), num_running=0)


def test_a_pause_of_this_process_says_nothing_of_the_server() -> None:
    member = _asked(Deaf(1.8, own_pause_s=0.6), RoutingOptions())
    assert (member.health.is_good, member.health.is_silent) == (True, False)

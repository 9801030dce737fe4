from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from scalellm_trt.gateway.admission import Admission
from scalellm_trt.gateway.errors import ApiError
from scalellm_trt.gateway.metrics import Metrics
from scalellm_trt.gateway.tenants.fair_queue import Flow, Turn

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Work:
    """Work that goes on until it is told to end."""

    def __init__(self, name: str, order: list[str]) -> None:
        self._name, self._order, self.end = name, order, asyncio.Event()

    async def __call__(self) -> str:
        self._order.append(self._name)
        await self.end.wait()
        return self._name


def _run(check: Callable[[Admission, Metrics, list[str]], Awaitable[None]], **limits: float) -> None:
    async def run() -> None:
        metrics = Metrics()
        wanted = {"max_streams": 1, "max_queue_size": 2, "queue_timeout_s": 5.0, **limits}
        admission = Admission(
            int(wanted["max_streams"]), int(wanted["max_queue_size"]), wanted["queue_timeout_s"], metrics
        )
        await check(admission, metrics, [])

    asyncio.run(run())


def _value(metrics: Metrics, name: str) -> float:
    lines = metrics.render().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(f"{name}{{"))


def test_places_go_to_those_who_wait_in_their_order() -> None:
    async def check(admission: Admission, metrics: Metrics, order: list[str]) -> None:
        works = [Work(name, order) for name in "abc"]
        tasks = [asyncio.create_task(admission.admitted("m", work)) for work in works]
        await asyncio.sleep(0)
        assert order == ["a"]
        assert _value(metrics, "scalellm_num_requests_waiting") == 2
        works[0].end.set()
        await tasks[0]
        late = asyncio.create_task(admission.admitted("m", Work("late", order)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert order == ["a", "b"]
        works[1].end.set()
        works[2].end.set()
        assert await asyncio.gather(*tasks) == ["a", "b", "c"]
        await asyncio.sleep(0)
        assert order == ["a", "b", "c", "late"]
        assert _value(metrics, "scalellm_num_requests_waiting") == 0
        late.cancel()

    _run(check)


def test_a_full_queue_is_told_at_once() -> None:
    async def check(admission: Admission, metrics: Metrics, order: list[str]) -> None:
        tasks = [asyncio.create_task(admission.admitted("m", Work(name, order))) for name in "abc"]
        await asyncio.sleep(0)
        with pytest.raises(ApiError, match="1 answers are being made and 2 requests wait") as error:
            await admission.admitted("m", Work("d", order))
        assert (error.value.status, error.value.code) == (429, "queue_full")
        for task in tasks:
            task.cancel()

    _run(check)


def test_nobody_waits_longer_than_the_limit() -> None:
    async def check(admission: Admission, metrics: Metrics, order: list[str]) -> None:
        first = Work("a", order)
        task = asyncio.create_task(admission.admitted("m", first))
        await asyncio.sleep(0)
        with pytest.raises(ApiError, match=r"within 0\.01 s") as error:
            await admission.admitted("m", Work("b", order))
        assert (error.value.status, error.value.code) == (503, "queue_timeout")
        first.end.set()
        await task
        # Who gave up is not given the place.
        assert await asyncio.wait_for(admission.admitted("m", _quick), 1) == "quick"
        assert _value(metrics, "scalellm_request_queue_time_seconds_count") == 2

    _run(check, queue_timeout_s=0.01)


@pytest.mark.parametrize("place_came_first", [False, True])
def test_a_client_that_leaves_the_queue_takes_no_place_with_it(place_came_first: bool) -> None:
    async def check(admission: Admission, metrics: Metrics, order: list[str]) -> None:
        first = Work("a", order)
        running = asyncio.create_task(admission.admitted("m", first))
        waiting = asyncio.create_task(admission.admitted("m", Work("b", order)))
        await asyncio.sleep(0)
        if place_came_first:
            first.end.set()
            await running
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        first.end.set()
        await running
        assert await asyncio.wait_for(admission.admitted("m", _quick), 1) == "quick"

    _run(check)


def test_work_that_fails_gives_its_place_back() -> None:
    async def fail() -> None:
        raise ApiError(500, "no")

    async def check(admission: Admission, metrics: Metrics, order: list[str]) -> None:
        for _ in range(3):
            with pytest.raises(ApiError, match="no"):
                await admission.admitted("m", fail)

    _run(check)


def test_tenants_take_turns_and_one_that_fills_the_queue_makes_room_for_others() -> None:
    many, few = Flow(name="many"), Flow(name="few")

    async def check(admission: Admission, metrics: Metrics, order: list[str]) -> None:
        names = ["first", "many1", "many2", "few"]
        works = {name: Work(name, order) for name in names}
        tasks = {}
        for name in names:
            turn = Turn(flow=few if name == "few" else many, num_tokens=10)
            tasks[name] = asyncio.create_task(admission.admitted("m", works[name], turn))
            await asyncio.sleep(0)
        with pytest.raises(ApiError, match="2 requests wait") as error:
            await tasks["many2"]
        assert (error.value.status, error.value.code) == (429, "queue_full")
        for name in ("first", "few", "many1"):
            works[name].end.set()
            assert await tasks[name] == name
        assert order == ["first", "few", "many1"]
        assert _value(metrics, "scalellm_tenant_queue_time_seconds_count") == 3
        assert _value(metrics, "scalellm_num_requests_waiting") == 0
        assert await asyncio.wait_for(admission.admitted("m", _quick), 1) == "quick"

    _run(check)


async def _quick() -> str:
    return "quick"

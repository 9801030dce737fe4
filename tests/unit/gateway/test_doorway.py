from __future__ import annotations

import asyncio

from scalellm_trt.gateway.doorway import Doorway
from tests.unit.gateway.test_http2 import in_loop


@in_loop
async def test_a_crowd_enters_one_by_one_and_the_loop_turns_in_between() -> None:
    doorway, seen = Doorway(), []

    async def request(name: int) -> None:
        await doorway.enter()
        seen.append(f"request {name}")
        asyncio.get_running_loop().call_soon(lambda: seen.append("turn"))

    await asyncio.gather(*map(request, range(4)))
    await asyncio.sleep(0)
    assert seen == [each for number in range(4) for each in (f"request {number}", "turn")]


@in_loop
async def test_who_comes_alone_does_not_wait() -> None:
    doorway = Doorway()
    for _ in range(3):
        entering = doorway.enter()
        try:
            entering.send(None)
        except StopIteration:
            pass
        else:
            raise AssertionError("it waits")
        await asyncio.sleep(0)
        await asyncio.sleep(0)


@in_loop
async def test_who_leaves_before_its_turn_holds_nobody_up() -> None:
    doorway = Doorway()
    await doorway.enter()
    leaving = asyncio.create_task(doorway.enter())
    staying = asyncio.create_task(doorway.enter())
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.wait_for(staying, 20)
    await asyncio.wait_for(doorway.enter(), 20)

"""Work for a client, ended as soon as the client leaves."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from starlette.types import Receive

Result = TypeVar("Result")


class ClientGoneError(Exception):
    """The client closed its connection before the answer was complete."""


async def until_gone(receive: Receive, work: Coroutine[Any, Any, Result]) -> Result:
    """Return what `work` returns; cancel it when the client leaves. The request's body must have been read.

    The work is done in the caller's own task: of many requests that come together, each is then on its way to the
    server before the next one is begun.

    Raises:
        ClientGoneError: the client left first.
    """
    task = asyncio.current_task()
    assert task is not None
    is_over = has_left = False

    def leave(watcher: asyncio.Task[None]) -> None:
        nonlocal has_left
        if not is_over and not watcher.cancelled():
            has_left = True
            task.cancel()

    watcher = asyncio.ensure_future(_gone(receive))
    watcher.add_done_callback(leave)
    try:
        return await work
    except asyncio.CancelledError:
        if not has_left:
            raise
        if sys.version_info >= (3, 11):
            task.uncancel()
        raise ClientGoneError from None
    finally:
        is_over = True
        watcher.cancel()


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass

"""Requests that come together, let in one by one: what servers say to the others is heard in between."""

from __future__ import annotations

import asyncio
from collections import deque


class Doorway:
    """One request a turn of the event loop. To be used in one event loop.

    To understand a request and send it on takes a few tenths of a millisecond. Of a crowd of a hundred all would be
    worked off before the loop looks at its sockets again, and every stream would stand still meanwhile.
    """

    def __init__(self) -> None:
        """Begin with nobody there."""
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._is_taken = False

    async def enter(self) -> None:
        """Return when it is this request's turn."""
        if not self._is_taken:
            self._is_taken = True
            asyncio.get_running_loop().call_soon(self._let_in)
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        await turn

    def _let_in(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                asyncio.get_running_loop().call_soon(self._let_in)
                return
        self._is_taken = False

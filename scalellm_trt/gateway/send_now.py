"""A coroutine that seldom waits, run without a task: at once where that can be, the rest later where it must wait."""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Coroutine, Generator


def try_now(coroutine: Coroutine[Any, Any, None]) -> Awaitable[None] | None:
    """Run `coroutine` up to where it first waits.

    Returns:
        None when it has ended; else what a task must await for the rest of it.
    """
    try:
        waits_for = coroutine.send(None)
    except StopIteration:
        return None
    return _rest(coroutine, waits_for)


@types.coroutine
def _rest(coroutine: Coroutine[Any, Any, None], waits_for: object) -> Generator[Any, Any, None]:
    """Go on with a coroutine that waits for `waits_for`, which the awaiting task gets to see as if it were its own."""
    while True:
        try:
            value = yield waits_for
        except BaseException as error:
            failure: BaseException | None = error
        else:
            failure = None
        try:
            waits_for = coroutine.send(value) if failure is None else coroutine.throw(failure)
        except StopIteration:
            return

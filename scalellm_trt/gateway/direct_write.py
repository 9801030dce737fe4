"""A streamed answer's way past ASGI: bytes in, one chunk on the client's connection out, in one call.

ASGI's `send` is a coroutine, and each middleware wraps another one around it: a tenth of what a token costs.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping
    from typing import Any

    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

_KEY: Final = "scalellm_trt.write"


def offer(scope: MutableMapping[str, Any], cycle: RequestResponseCycle) -> None:
    """Let the application write the body of this request's answer itself, once its head is sent."""
    reference = weakref.ref(cycle)  # which holds the scope: neither may keep the other

    def write(body: bytes) -> bool:
        cycle = reference()
        if cycle is None or not cycle.chunked_encoding or cycle.flow.write_paused:
            return False
        if cycle.disconnected or cycle.response_complete:
            return False
        cycle.transport.write(b"%x\r\n%b\r\n" % (len(body), body))
        return True

    scope[_KEY] = write


def writer_of(scope: MutableMapping[str, Any]) -> Callable[[bytes], bool] | None:
    """Return what `offer` left for a request; it returns False when a chunk must go by ASGI. None elsewhere."""
    writer: Callable[[bytes], bool] | None = scope.get(_KEY)
    return writer

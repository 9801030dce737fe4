"""The seam between answers and the way to a tritonserver: a request out, its messages back by callbacks.

Callbacks and not an iterator: a task switch for each token would cost more than all else that is done for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scalellm_trt.gateway.errors import ApiError
    from scalellm_trt.gateway.express import Express

Message = Any
"""A message of Triton's gRPC; protobuf's generated classes have no types."""

SERVICE: Final = "inference.GRPCInferenceService"


class Listener(Protocol):
    """Takes what a call brings. Neither method may raise, and none is called while the call is paused."""

    def on_messages(self, messages: list[Message]) -> None:
        """Take the `ModelStreamInferResponse`s that came in one read, at least one."""
        ...

    def on_end(self, error: ApiError | None) -> None:
        """Take the end; nothing follows."""
        ...


class Call(Protocol):
    """One generation on its way."""

    def cancel(self) -> None:
        """End it on the server; no callback follows. Without effect after the end."""
        ...

    def pause(self) -> None:
        """Call back no more until `resume`. The sender is stopped once a small window is full."""
        ...

    def resume(self) -> None:
        """Deliver what has come meanwhile, and go on."""
        ...

    def hurry(self, express: Express | None) -> None:
        """Let plain tokens go to `express` and not to the listener, where the call knows how; None takes it back."""
        ...


class PlacedCall(Call, Protocol):
    """A call of which it is known where it went.

    Attributes:
        server_url: `host:port`; None before it went anywhere.
    """

    server_url: str | None


class Upstream(Protocol):
    """One tritonserver. To be used and closed in one event loop."""

    async def start(self, request: Message, listener: Listener, metadata: Sequence[tuple[str, str]] = ()) -> Call:
        """Begin `ModelStreamInfer` with one request, half-closed. No callback comes before this has returned.

        Args:
            request: a `ModelInferRequest`.
            listener: takes the answer.
            metadata: more headers of the call, names in lower case.

        Raises:
            ApiError: there is no connection.
        """
        ...

    async def unary(self, method: str, request: Message, timeout_s: float) -> Message:
        """Return the answer of a method such as `ServerReady` to a request of its type, `ServerReadyRequest`.

        Raises:
            ApiError: the server does not answer in time, or refuses.
        """
        ...

    def abandon(self, reason: str) -> None:
        """End every call, and break the connections: they fail with 503 as if the server were gone."""
        ...

    def last_received_s(self) -> float | None:
        """Return when anything last came from the server, by `time.monotonic`; None if that is not known."""
        ...

    def num_connections(self) -> int:
        """Return how many connections stand."""
        ...

    async def close(self) -> None:
        """End every connection; what still runs is cancelled."""
        ...

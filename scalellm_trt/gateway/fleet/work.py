"""The seam between a generation and the fleet that finds it a server, and another one where that breaks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scalellm_trt.gateway.errors import ApiError
    from scalellm_trt.gateway.upstream import Listener, Message, PlacedCall


class Work(Protocol):
    """What is to be generated, and how far that is."""

    @property
    def model(self) -> str:
        """The model that is asked."""
        ...

    @property
    def input_ids(self) -> Sequence[int]:
        """The prompt."""
        ...

    @property
    def num_tokens(self) -> int:
        """Tokens that a server may have to process: the prompt and the longest answer."""
        ...

    @property
    def has_begun(self) -> bool:
        """Whether tokens have come."""
        ...

    @property
    def is_done(self) -> bool:
        """Whether all tokens have come."""
        ...

    @property
    def is_sampled(self) -> bool:
        """Whether another server would go on with other tokens, though as good ones."""
        ...

    def request(self) -> Message:
        """Return what to send now: all of it, or after tokens have come what is left."""
        ...

    def why_not_continued(self) -> str | None:
        """Return why no other server can go on where one stopped; None if one can."""
        ...

    def refusal(self, message: str) -> ApiError:
        """Return what an error text inside a stream means."""
        ...


class Servers(Protocol):
    """Who can be given work; a `Fleet` outside of tests."""

    async def start(self, work: Work, listener: Listener, metadata: Sequence[tuple[str, str]] = ()) -> PlacedCall:
        """Begin a generation at a server; no callback comes before this has returned.

        Args:
            work: what is to be generated.
            listener: gets the messages, and one end.
            metadata: more headers of the calls, names in lower case.

        Raises:
            ApiError: no server takes it.
        """
        ...

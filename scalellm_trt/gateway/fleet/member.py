"""One server of a fleet: where it is, what it is doing for us, and whether it may be given more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from scalellm_trt.gateway.fleet.health import Health
    from scalellm_trt.gateway.options import ServerOptions
    from scalellm_trt.gateway.upstream import Upstream


class Member:
    """A server.

    Attributes:
        num_running: our requests that it works on.
        num_outstanding_tokens: tokens, prompts included, that they may still take; counted when they begin.
        is_draining: gets no new requests; those that run go on.
        models: what it has loaded; None as long as nobody knows.
    """

    def __init__(self, options: ServerOptions, upstream: Upstream, health: Health) -> None:
        """Take a server that nobody has asked yet."""
        self.options, self.upstream, self.health = options, upstream, health
        self.num_running = self.num_outstanding_tokens = 0
        self.is_draining = False
        self.models: frozenset[str] | None = None

    @property
    def name(self) -> str:
        """What configuration, log and metrics call it."""
        return self.options.name

    @property
    def condition(self) -> Literal["ready", "not ready", "draining"]:
        """What an operator is told."""
        if self.is_draining:
            return "draining"
        return "ready" if self.health.is_good else "not ready"

    @property
    def load(self) -> float:
        """Outstanding tokens for its weight: a server of weight 2 is as loaded with twice as many."""
        return self.num_outstanding_tokens / self.options.weight

    def has(self, model: str) -> bool:
        """Return whether it can be asked for `model`, as far as is known."""
        return self.models is None or model in self.models

    def begin(self, num_tokens: int) -> None:
        """Count a request in."""
        self.num_running += 1
        self.num_outstanding_tokens += num_tokens

    def end(self, num_tokens: int) -> None:
        """Count a request out, with the number of tokens that it was counted in with."""
        self.num_running -= 1
        self.num_outstanding_tokens -= num_tokens

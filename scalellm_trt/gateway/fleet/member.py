"""One server of a fleet: where it is, what it is doing for us, and whether it may be given more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from scalellm_trt.gateway.fleet.server_load import OwnLoad

if TYPE_CHECKING:
    from scalellm_trt.gateway.fleet.health import Health
    from scalellm_trt.gateway.fleet.server_load import ServerLoad
    from scalellm_trt.gateway.options import ServerOptions
    from scalellm_trt.gateway.upstream import Upstream


class Member:
    """A server.

    Attributes:
        is_draining: gets no new requests; those that run go on.
        models: what it has loaded; None as long as nobody knows.
    """

    def __init__(
        self, options: ServerOptions, upstream: Upstream, health: Health, load: ServerLoad | None = None
    ) -> None:
        """Take a server; `load` is what all workers know of it, None where this one is alone."""
        self.options, self.upstream, self.health = options, upstream, health
        self._load = load or OwnLoad()
        self.is_draining = False
        self.models: frozenset[str] | None = None

    @property
    def name(self) -> str:
        """What configuration, log and metrics call it."""
        return self.options.name

    @property
    def num_running(self) -> int:
        """Requests that it works on, of all workers."""
        return self._load.num_running()

    @property
    def num_own_running(self) -> int:
        """Those of this worker."""
        return self._load.own_running

    @property
    def num_outstanding_tokens(self) -> int:
        """Tokens, prompts included, that the requests of all workers may still take; counted when they begin."""
        return self._load.num_tokens()

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
        self._load.add(1, num_tokens)

    def end(self, num_tokens: int) -> None:
        """Count a request out, with the number of tokens that it was counted in with."""
        self._load.add(-1, -num_tokens)

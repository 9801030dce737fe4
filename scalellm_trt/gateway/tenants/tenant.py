"""A tenant of the gateway: which keys are its own, what it may ask for and how much, its rank and share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

Priority = Literal["high", "normal", "low"]
PRIORITIES: Final[tuple[Priority, ...]] = ("high", "normal", "low")
"""Highest first."""
DEFAULT_NAME: Final = "default"
"""The tenant of keys that belong to no other, and of everybody where no key is asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """One tenant. None is no limit.

    Attributes:
        key_names: of the key file.
        requests_per_minute: refilled all the time; a minute's worth may come at once.
        tokens_per_minute: the same, of prompts and answers.
        max_concurrent: requests that have come and have not been answered to their end.
        weight: share of the tokens among waiting tenants of the same priority.
        models: names of the models that it may ask for; None is all.
        price_per_million_input, price_per_million_output: of tokens of prompts and of answers, in whatever currency.
    """

    name: str
    key_names: tuple[str, ...]
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    max_concurrent: int | None = None
    priority: Priority = "normal"
    weight: float = 1.0
    models: frozenset[str] | None = None
    price_per_million_input: float | None = None
    price_per_million_output: float | None = None

    @property
    def is_limited(self) -> bool:
        """Whether it may be told to come back later."""
        return (self.requests_per_minute, self.tokens_per_minute, self.max_concurrent) != (None, None, None)

    def may_use(self, model: str) -> bool:
        """Return whether it may ask for a model."""
        return self.models is None or model in self.models


def with_default(tenants: Sequence[Tenant]) -> tuple[Tenant, ...]:
    """Return `tenants`, the default one among them; it has no limits where it is not written."""
    if any(tenant.name == DEFAULT_NAME for tenant in tenants):
        return tuple(tenants)
    return (Tenant(name=DEFAULT_NAME, key_names=()), *tenants)

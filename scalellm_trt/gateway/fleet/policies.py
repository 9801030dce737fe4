"""Which of several good servers gets a request. Pure decisions over what is known of them."""

from __future__ import annotations

import hashlib
from array import array
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scalellm_trt.gateway.fleet.member import Member
    from scalellm_trt.gateway.options import RoutingOptions

MAX_PREFIX_BLOCKS: Final = 64
"""Longest beginning that is looked at, in blocks: 2,048 tokens of 32 a block."""
MAX_PREFIXES: Final = 100_000


class Policy(Protocol):
    """Chooses; remembers what it has to."""

    def choose(self, members: Sequence[Member], input_ids: Sequence[int]) -> Member:
        """Return one of `members`, of which there is at least one, for a prompt."""
        ...


def make(options: RoutingOptions) -> Policy:
    """Return the policy that is asked for."""
    if options.policy == "prefix":
        return PrefixAffinity(options.prefix_block_tokens, options.prefix_load_factor)
    simple: dict[str, type[LeastTokens | RoundRobin | Weighted]] = {
        "least_tokens": LeastTokens,
        "round_robin": RoundRobin,
        "weighted": Weighted,
    }
    return simple[options.policy]()


def signature(options: RoutingOptions) -> tuple[object, ...]:
    """Return what tells one policy from another: with an equal one `make` would make the same."""
    return options.policy, options.prefix_block_tokens, options.prefix_load_factor


class LeastTokens:
    """The one with the fewest outstanding tokens for its weight; equal ones take turns."""

    def __init__(self) -> None:
        """Begin with the first."""
        self._turn = 0

    def choose(self, members: Sequence[Member], input_ids: Sequence[int]) -> Member:
        """See `Policy`."""
        self._turn += 1
        first = self._turn % len(members)
        return min((*members[first:], *members[:first]), key=lambda member: member.load)


class RoundRobin:
    """One after the other."""

    def __init__(self) -> None:
        """Begin with the first."""
        self._turn = -1

    def choose(self, members: Sequence[Member], input_ids: Sequence[int]) -> Member:
        """See `Policy`."""
        self._turn += 1
        return members[self._turn % len(members)]


class Weighted:
    """As often as its weight says, evenly spread.

    Each time everybody gains its weight, and the one with most pays the sum of all weights: smooth weighted round
    robin, as nginx has it.
    """

    def __init__(self) -> None:
        """Begin with nobody ahead."""
        self._gained: dict[str, float] = {}

    def choose(self, members: Sequence[Member], input_ids: Sequence[int]) -> Member:
        """See `Policy`."""
        # Whoever is away is forgotten, and does not come back with what it would have gained.
        self._gained = {member.name: self._gained.get(member.name, 0.0) + member.options.weight for member in members}
        chosen = max(members, key=lambda member: self._gained[member.name])
        self._gained[chosen.name] -= sum(member.options.weight for member in members)
        return chosen


class PrefixAffinity:
    """The one that had the longest part of the prompt's beginning before, unless it has too much to do.

    A server that has seen a beginning holds its KV pages, so a conversation and a shared system prompt should go where
    they went. But not more than `load_factor` times the mean load (bounded load): then the least loaded one gets the
    request, and has the beginning from then on, too.
    """

    def __init__(self, block_tokens: int, load_factor: float) -> None:
        """Know nothing yet.

        Args:
            block_tokens: beginnings are told apart in blocks of so many tokens.
            load_factor: at least 1.
        """
        self._block_tokens, self._load_factor = block_tokens, load_factor
        self._seen: OrderedDict[bytes, str] = OrderedDict()
        self._least = LeastTokens()

    def choose(self, members: Sequence[Member], input_ids: Sequence[int]) -> Member:
        """See `Policy`."""
        keys = prefix_keys(input_ids, self._block_tokens)
        chosen = self._known(members, keys)
        if chosen is None or self._has_too_much(chosen, members, len(input_ids)):
            chosen = self._least.choose(members, input_ids)
        for key in keys:
            self._seen[key] = chosen.name
            self._seen.move_to_end(key)
        while len(self._seen) > MAX_PREFIXES:
            self._seen.popitem(last=False)
        return chosen

    def _known(self, members: Sequence[Member], keys: Sequence[bytes]) -> Member | None:
        by_name = {member.name: member for member in members}
        for key in reversed(keys):
            name = self._seen.get(key)
            if name in by_name:
                return by_name[name]
        return None

    def _has_too_much(self, member: Member, members: Sequence[Member], num_tokens: int) -> bool:
        """Return whether the member would be above the bound with `num_tokens` more; one request is always allowed."""
        weight = sum(other.options.weight for other in members)
        mean = (sum(other.num_outstanding_tokens for other in members) + num_tokens) / weight
        return member.num_running > 0 and member.load > self._load_factor * mean


def prefix_keys(input_ids: Sequence[int], block_tokens: int) -> list[bytes]:
    """Return a key for each beginning of a prompt that is whole blocks long, the shortest first."""
    num_blocks = min(len(input_ids) // block_tokens, MAX_PREFIX_BLOCKS)
    raw = memoryview(array("i", input_ids[: num_blocks * block_tokens])).cast("B")
    size = block_tokens * 4
    digest, keys = hashlib.blake2b(digest_size=16), []
    for begin in range(0, num_blocks * size, size):
        digest.update(raw[begin : begin + size])
        keys.append(digest.digest())
    return keys

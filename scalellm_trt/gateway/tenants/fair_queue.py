"""Who is next of those that wait: the highest class, and in a class each tenant by its weight, counted in tokens.

A class that waits behind a higher one is owed a twentieth of the tokens that the higher ones are given, and has its
turn when that is enough for its next request: it is slow, but moves as long as anything moves.

In a class this is start-time fair queueing: each tenant has a counter of tokens / weight, the lowest is next, and who
comes after a pause begins where the others are: a pause saves nothing up. A request is counted with what it probably
uses of all that it reserves, by what the tenant's requests before it used, and at its end with what it did use.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

LOWER_SHARE: Final = 1 / 20
"""What a class that waits is owed of the tokens that higher classes are given."""
_LEAST_PART: Final = 0.01
"""What a request counts with of all that it reserves, though those before it were all in vain."""
_NEWEST_PART: Final = 0.1
"""How much the last request counts in what the next one probably uses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """The requests of one tenant.

    Attributes:
        rank: of its class; 0 is the highest.
        weight: share of the tokens among the flows of its class.
    """

    name: str
    rank: int = 0
    weight: float = 1.0


@dataclass(slots=True, kw_only=True, eq=False)
class Turn:
    """One request.

    Attributes:
        num_tokens: the most that it can use.
        counted_tokens: what it counts with; 0 until it is let in.
    """

    flow: Flow
    num_tokens: int
    counted_tokens: float = 0.0


EVERYBODY: Final = Flow(name="")
"""The only flow where there are no tenants: first come, first served."""


@dataclass(slots=True)
class _Line:
    """The requests of a flow that wait."""

    flow: Flow
    counter: float = 0.0
    used_part: float = 1.0
    waiting: deque[Turn] = field(default_factory=deque)

    def length(self, num_more: int = 0) -> float:
        """Return how many wait, the less the more the flow may have."""
        return (len(self.waiting) + num_more) / self.flow.weight

    def cost(self, turn: Turn) -> float:
        """Return what a request probably uses."""
        return turn.num_tokens * max(self.used_part, _LEAST_PART)


@dataclass(slots=True)
class _Class:
    lines: dict[str, _Line] = field(default_factory=dict)
    virtual_time: float = 0.0
    owed_tokens: float = 0.0

    def waiting(self) -> list[_Line]:
        return [line for line in self.lines.values() if line.waiting]

    def first(self) -> _Line | None:
        return min(self.waiting(), key=lambda line: line.counter, default=None)

    def line(self, flow: Flow) -> _Line:
        """Return the flow's line; if it is empty, it begins where the others of the class are."""
        line = self.lines.get(flow.name)
        if line is None:
            line = self.lines[flow.name] = _Line(flow)
        line.flow = flow  # its weight may have changed
        if not line.waiting:
            first = self.first()
            now = self.virtual_time if first is None else min(self.virtual_time, first.counter)
            line.counter = max(line.counter, now)
        return line

    def count(self, line: _Line, turn: Turn) -> None:
        turn.counted_tokens = line.cost(turn)
        self.virtual_time = max(self.virtual_time, line.counter)
        line.counter += turn.counted_tokens / line.flow.weight


class FairQueue:
    """Requests that wait for a place. It knows no time, and nobody's patience."""

    def __init__(self) -> None:
        """Begin with nobody."""
        self._classes: dict[int, _Class] = {}
        self._num_waiting = 0

    def __len__(self) -> int:
        """Return how many wait."""
        return self._num_waiting

    def push(self, turn: Turn) -> None:
        """Let a request wait."""
        self._class(turn.flow).line(turn.flow).waiting.append(turn)
        self._num_waiting += 1

    def pop(self) -> Turn:
        """Return who is next, and let it in; at least one must wait."""
        rank = self._next_rank()
        chosen = self._classes[rank]
        line = chosen.first()
        assert line is not None
        turn = line.waiting.popleft()
        self._num_waiting -= 1
        chosen.count(line, turn)
        for other, its_class in self._classes.items():
            if other > rank:
                owed = its_class.owed_tokens + turn.counted_tokens * LOWER_SHARE
                its_class.owed_tokens = owed if its_class.waiting() else 0.0
        return turn

    def let_in(self, turn: Turn) -> None:
        """Count a request that need not wait."""
        its_class = self._class(turn.flow)
        its_class.count(its_class.line(turn.flow), turn)

    def settle(self, turn: Turn, num_used_tokens: float) -> None:
        """Count a request that was let in with what it has used in the end."""
        line = self._classes[turn.flow.rank].lines[turn.flow.name]
        line.counter += (num_used_tokens - turn.counted_tokens) / turn.flow.weight
        if turn.num_tokens:
            line.used_part += _NEWEST_PART * (num_used_tokens / turn.num_tokens - line.used_part)

    def remove(self, turn: Turn) -> None:
        """Forget one that waits.

        Raises:
            ValueError: it does not.
        """
        self._classes[turn.flow.rank].lines[turn.flow.name].waiting.remove(turn)
        self._num_waiting -= 1

    def displaced(self, flow: Flow) -> Turn | None:
        """Return whose place in a full queue a new request of `flow` takes, and forget it; None: it has to go itself.

        That is the last one of the longest line (by weight) in the lowest class, if that is longer than the new one's.
        """
        rank = max((rank for rank, its_class in self._classes.items() if its_class.waiting()), default=flow.rank)
        longest = max(self._class_of(rank).waiting(), key=_Line.length, default=None)
        if longest is None or rank < flow.rank:
            return None
        if rank == flow.rank and longest.length() <= self._class(flow).line(flow).length(num_more=1):
            return None
        self._num_waiting -= 1
        return longest.waiting.pop()

    def _class(self, flow: Flow) -> _Class:
        return self._class_of(flow.rank)

    def _class_of(self, rank: int) -> _Class:
        found = self._classes.get(rank)
        if found is None:
            found = self._classes[rank] = _Class()
        return found

    def _next_rank(self) -> int:
        """Return the class that is next: one to which enough is owed, else the highest that waits."""
        highest, *lower = [rank for rank in sorted(self._classes) if self._classes[rank].waiting()]
        for rank in lower:
            its_class = self._classes[rank]
            line = its_class.first()
            assert line is not None
            cost = line.cost(line.waiting[0])
            if its_class.owed_tokens >= cost:
                its_class.owed_tokens -= cost
                return rank
        return highest

"""The queue alone, with clients and places played by the test: who gets which share of the tokens."""

from __future__ import annotations

import heapq
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalellm_trt.gateway.tenants.fair_queue import EVERYBODY, LOWER_SHARE, FairQueue, Flow, Turn

Sizes = tuple[int, int, int]
"""What a tenant's requests reserve, and the least and the most that they use."""


class Play:
    """Clients that each send a request when the one before has ended; a request takes a step for each token."""

    def __init__(self, sizes: dict[Flow, Sizes], num_places: int, seed: int) -> None:
        self._sizes, self._free, self._random = sizes, num_places, random.Random(seed)
        self._queue = FairQueue()
        self._running: list[tuple[int, int, Turn, int]] = []
        self._needs: dict[Turn, int] = {}
        self._number = self._now = 0
        self.used: Counter[str] = Counter()
        clients = [flow for flow in sizes for _ in range(num_places * 2)]
        self._random.shuffle(clients)
        for flow in clients:
            self._send(flow)

    def run(self, num_tokens: int) -> Counter[str]:
        """Go on until so many tokens are used; return whose they were."""
        before = self.used.copy()
        while self.used.total() - before.total() < num_tokens:
            self._now, _, turn, used = heapq.heappop(self._running)
            self._queue.settle(turn, used)
            self.used[turn.flow.name] += used
            self._free += 1
            if len(self._queue):
                self._start(self._queue.pop())
            self._send(turn.flow)
        return self.used - before

    def _send(self, flow: Flow) -> None:
        reserved, least, most = self._sizes[flow]
        turn = Turn(flow=flow, num_tokens=reserved)
        self._needs[turn] = self._random.randint(least, most)
        if self._free:
            self._queue.let_in(turn)
            self._start(turn)
        else:
            self._queue.push(turn)

    def _start(self, turn: Turn) -> None:
        self._free -= 1
        self._number += 1
        used = self._needs.pop(turn)
        heapq.heappush(self._running, (self._now + used, self._number, turn, used))


@settings(max_examples=15, deadline=None)
@given(
    weights=st.lists(st.sampled_from([0.5, 1.0, 2.0, 3.0]), min_size=2, max_size=5),
    num_places=st.integers(2, 12),
    seed=st.integers(0, 2**32),
    data=st.data(),
)
def test_tenants_of_a_class_get_tokens_by_their_weight(
    weights: list[float], num_places: int, seed: int, data: st.DataObject
) -> None:
    kinds: list[Sizes] = [(532, 5, 60), (100, 100, 100), (1000, 500, 1000), (64, 1, 64)]
    flows = [Flow(name=str(number), weight=weight) for number, weight in enumerate(weights)]
    sizes = {flow: data.draw(st.sampled_from(kinds)) for flow in flows}
    play = Play(sizes, num_places, seed)
    play.run(50_000)
    used = play.run(800_000)
    for flow in flows:
        share = flow.weight / sum(weights)
        assert used[flow.name] / used.total() == pytest.approx(share, rel=0.05), (flow, sizes[flow])


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32), num_places=st.integers(1, 12))
def test_a_higher_class_goes_first_and_none_starves(seed: int, num_places: int) -> None:
    flows = [Flow(name=str(rank), rank=rank) for rank in range(3)]
    play = Play(dict.fromkeys(flows, (200, 20, 200)), num_places, seed)
    play.run(20_000)
    used = play.run(300_000)
    for lower in ("1", "2"):
        assert used[lower] / used["0"] == pytest.approx(LOWER_SHARE, rel=0.15)


def test_one_tenant_is_served_in_the_order_of_arrival() -> None:
    queue = FairQueue()
    turns = [Turn(flow=EVERYBODY, num_tokens=tokens) for tokens in (900, 1, 50, 0)]
    for turn in turns:
        queue.push(turn)
    assert [queue.pop() for _ in turns] == turns


def test_a_pause_saves_nothing_up() -> None:
    queue = FairQueue()
    busy, late = Flow(name="busy"), Flow(name="late")
    for _ in range(100):
        queue.let_in(Turn(flow=busy, num_tokens=100))
    for flow in (busy, late):
        for _ in range(10):
            queue.push(Turn(flow=flow, num_tokens=100))
    names = [queue.pop().flow.name for _ in range(10)]
    assert names.count("late") in (5, 6)


def test_what_was_not_used_is_given_back() -> None:
    queue = FairQueue()
    frugal, other = Flow(name="frugal"), Flow(name="other")
    first = [Turn(flow=flow, num_tokens=100) for flow in (frugal, other)]
    for turn, used in zip(first, (0, 100), strict=True):
        queue.let_in(turn)
        queue.settle(turn, used)
    for flow in (other, other, frugal, frugal):
        queue.push(Turn(flow=flow, num_tokens=100))
    assert [queue.pop().flow.name for _ in range(4)] == ["frugal", "frugal", "other", "other"]


def test_one_that_left_is_not_served() -> None:
    queue = FairQueue()
    turns = [Turn(flow=EVERYBODY, num_tokens=1) for _ in range(3)]
    for turn in turns:
        queue.push(turn)
    queue.remove(turns[1])
    assert [queue.pop(), queue.pop(), len(queue)] == [turns[0], turns[2], 0]


def test_a_full_queue_is_left_by_the_longest_line_of_the_lowest_class() -> None:
    queue = FairQueue()
    high, low, many = Flow(name="high", rank=0), Flow(name="low", rank=2), Flow(name="many", rank=2)
    turns = [Turn(flow=many, num_tokens=1) for _ in range(3)]
    for turn in (Turn(flow=low, num_tokens=1), *turns):
        queue.push(turn)
    assert queue.displaced(many) is None
    assert queue.displaced(high) is turns[2]
    assert queue.displaced(low) is None  # as long as the other's
    assert len(queue) == 3
    queue.push(Turn(flow=high, num_tokens=1))
    assert queue.displaced(Flow(name="normal", rank=1)) is turns[1]
    while len(queue) > 1:
        queue.pop()
    assert queue.displaced(high) is not None


def test_a_lower_class_displaces_no_higher_one() -> None:
    queue = FairQueue()
    for _ in range(5):
        queue.push(Turn(flow=Flow(name="high"), num_tokens=1))
    assert queue.displaced(Flow(name="low", rank=2)) is None


def test_a_weight_that_changes_holds_for_what_follows() -> None:
    queue = FairQueue()
    for weight in (1.0, 3.0):
        changed, other = Flow(name="a", weight=weight), Flow(name="b")
        for _ in range(40):
            queue.push(Turn(flow=changed, num_tokens=10))
            queue.push(Turn(flow=other, num_tokens=10))
        first = Counter(queue.pop().flow.name for _ in range(20))
        assert first["a"] / first["b"] == pytest.approx(weight, rel=0.2)
        while len(queue):
            queue.pop()

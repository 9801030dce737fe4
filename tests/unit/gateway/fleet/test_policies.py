"""Who gets a request: shares by weight and load, conversations where they were, never far above the mean."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalellm_trt.gateway.fleet import policies
from scalellm_trt.gateway.fleet.groups import GroupSwitch
from scalellm_trt.gateway.fleet.health import Health
from scalellm_trt.gateway.fleet.member import Member
from scalellm_trt.gateway.fleet.policies import prefix_keys
from scalellm_trt.gateway.options import GroupOptions, RoutingOptions, ServerOptions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scalellm_trt.gateway.options import PolicyName


def _members(*weights: float, groups: Sequence[str] = ()) -> list[Member]:
    upstream: Any = None
    return [
        Member(
            ServerOptions(name=f"s{index}", url=f"h:{index}", weight=weight, group=groups[index] if groups else None),
            upstream,
            Health(3, lambda: 0.0),
        )
        for index, weight in enumerate(weights)
    ]


def _shares(policy: PolicyName, members: Sequence[Member], number: int) -> dict[str, int]:
    chooser = policies.make(RoutingOptions(policy=policy))
    return dict(Counter(chooser.choose(members, [1, 2, 3]).name for _ in range(number)))


def test_round_robin_takes_turns_and_weights_are_shares() -> None:
    assert _shares("round_robin", _members(1, 5, 1), 9) == {"s0": 3, "s1": 3, "s2": 3}
    assert _shares("weighted", _members(5, 1, 2), 80) == {"s0": 50, "s1": 10, "s2": 20}


def test_weighted_turns_are_spread_and_nobody_catches_up_after_an_absence() -> None:
    chooser, members = policies.make(RoutingOptions(policy="weighted")), _members(1, 1)
    for _ in range(50):
        chooser.choose(members[:1], [])
    assert Counter(chooser.choose(members, []).name for _ in range(10)) == {"s0": 5, "s1": 5}


def test_least_tokens_fills_servers_by_their_weight() -> None:
    chooser, members = policies.make(RoutingOptions()), _members(1, 2, 1)
    for _ in range(400):
        chooser.choose(members, []).begin(100)
    assert [member.num_running for member in members] == pytest.approx([100, 200, 100], abs=1)


def test_a_conversation_goes_where_it_was_and_so_does_what_begins_like_it() -> None:
    chooser, members = policies.make(RoutingOptions(policy="prefix")), _members(1, 1, 1)
    system = list(range(64))
    first = chooser.choose(members, [*system, 1])
    assert {chooser.choose(members, [*system, other] * 2).name for other in range(20)} == {first.name}
    conversation = [*system, *[7] * 64]
    first.begin(10_000)
    second = chooser.choose(members, conversation)  # the first one has too much to do
    assert second is not first
    first.end(10_000)
    assert chooser.choose(members, [*conversation, 8]) is second
    assert chooser.choose(members[:1], conversation) is members[0]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=300), st.sampled_from([1.0, 1.25, 2.0]))
def test_prefix_affinity_keeps_loads_within_its_bound(prompts: list[int], factor: float) -> None:
    chooser = policies.make(RoutingOptions(policy="prefix", prefix_load_factor=factor))
    members = _members(1, 1, 1, 1)
    for prompt in prompts:
        chooser.choose(members, [prompt] * 64).begin(100)
    mean = len(prompts) / len(members)
    assert max(member.num_running for member in members) <= factor * mean + 2


def test_prefix_keys_are_those_of_the_beginnings() -> None:
    keys = prefix_keys(list(range(100)), 32)
    assert len(set(keys)) == len(keys) == 3
    assert prefix_keys([*range(64), *[0] * 64], 32)[:2] == keys[:2]
    assert prefix_keys([5, *range(1, 100)], 32)[0] != keys[0]
    assert prefix_keys(list(range(31)), 32) == []
    assert len(prefix_keys([1] * 100_000, 32)) == policies.MAX_PREFIX_BLOCKS


def test_groups_switch_at_the_threshold_and_back_below_it() -> None:
    members = _members(1, 1, 1, groups=["tp", "replicas", "replicas"])
    switch = GroupSwitch(GroupOptions(few="tp", many="replicas", threshold=8, hysteresis=3))

    def group(num_running: int) -> set[str | None]:
        return {member.options.group for member in switch.of(members, num_running)}

    assert [group(number) for number in (0, 7)] == [{"tp"}, {"tp"}]
    assert [group(number) for number in (8, 7, 5)] == [{"replicas"}] * 3
    assert [group(number) for number in (4, 7)] == [{"tp"}] * 2
    assert switch.of(members[1:], 0) == members[1:], "a group that is gone is not waited for"

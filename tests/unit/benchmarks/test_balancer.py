"""The balancer's simulation: published ends are met, time passes as it should, the group is the gateway's choice."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from scalellm_trt.gateway.options import GroupOptions, RoutingOptions
from scripts.benchmarks.sides import ramp
from scripts.benchmarks.sides.line_chart import Line, Panel, svg
from scripts.benchmarks.sides.server_shapes import NUM_REPLICAS, TENSOR_PARALLEL, Shape, replica
from scripts.benchmarks.sides.simulated_fleet import SimulatedFleet

CONSTANT = Shape(alone_tokens_per_s=100, full_tokens_per_s=100, full_requests=2, first_token_s=0.5)
"""100 tokens/s however many share them."""


def test_shapes_have_the_published_speeds_at_their_ends() -> None:
    assert TENSOR_PARALLEL.tokens_per_s(1) == pytest.approx(185)
    assert TENSOR_PARALLEL.tokens_per_s(63) == pytest.approx(5200)
    for full in (128, 256, 512):
        assert replica(full).tokens_per_s(1) == pytest.approx(146)
        assert NUM_REPLICAS * replica(full).tokens_per_s(full // NUM_REPLICAS) == pytest.approx(17_000)


def test_a_server_reads_prompts_one_by_one_and_shares_its_speed() -> None:
    fleet = SimulatedFleet({"one": [CONSTANT]}, RoutingOptions())
    fleet.run(lambda at_s: 2 if at_s == 0 else 0, 100, tokens=(101, 101))
    first, second = fleet.done
    assert (first.first_token_s, second.first_token_s) == pytest.approx((0.5, 1.0))
    # The first is alone for half a second (50 tokens), then both get 50 a second until it ends, and so on.
    assert (first.ended_s, second.ended_s) == pytest.approx((2.0, 2.5))


def test_the_gateways_own_switch_chooses_the_group() -> None:
    groups = {"few": [CONSTANT], "many": [CONSTANT] * 2}
    switch = GroupOptions(few="few", many="many", threshold=3, hysteresis=2)
    fleet = SimulatedFleet(groups, RoutingOptions(groups=switch))
    fleet.run(lambda at_s: 6 if at_s < 60 else 1, 240, tokens=(20, 40))
    steady = [done for done in fleet.done if 20 < done.sent_s < 60]
    calm = [done for done in fleet.done if done.sent_s > 120]
    assert {done.group for done in steady} == {"many"}
    assert {done.group for done in calm} == {"few"}
    assert [is_busy for _, is_busy in fleet.switches] == [True, False]


def test_a_ramps_steps_count_what_was_made_in_them() -> None:
    level_s = 4.0
    seen = [
        ramp.Seen(
            sent_s=at, first_token_s=at + 0.1, ended_s=at + 0.9, num_tokens=80, group="few" if at < 40 else "many"
        )
        for at in range(int(level_s) * len(ramp.LEVELS))
    ]
    steps = ramp.steps(seen, level_s, "few")
    assert [step.level for step in steps] == list(ramp.LEVELS)
    assert {round(step.tokens_per_s, 3) for step in steps} == {80.0}
    assert steps[0].ttft_p50_ms == pytest.approx(100)
    assert (steps[0].few_share, steps[-1].few_share) == (1.0, 0.0)
    assert len(ramp.table([("balanced", steps), ("few", steps)])) == 2 + len(steps)
    ET.fromstring(ramp.plot("a & b", [("balanced", steps), ("few", steps)], "few"))


def test_a_chart_puts_the_highest_point_at_the_top_and_zero_at_the_bottom() -> None:
    drawn = svg("t", [Panel(title="p", lines=[Line(name="l", points=[(0, 0.0), (10, 10.0)])])], "s")
    (path,) = [each.get("d") or "" for each in ET.fromstring(drawn) if each.get("fill") == "none"]
    assert path == "M70.0 202.0L740.0 62.0"

#!/usr/bin/env python3
"""ScaleLLM's dynamic load balancing, simulated with its published throughputs; the gateway's own code chooses groups.

    python -m scripts.benchmarks.balancer_simulation [--plot docs/images/balancer-simulation.svg]

A load of 1 to 128 clients and back over one server with tensor parallelism over 8 GPUs (185-5,200 tokens/s) and eight
without (146-17,000), and over either alone. A server's speed with n requests: sides/server_shapes.py. All is an
estimate: the published ends are given, what lies between is a formula, and no GPU was used.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from scalellm_trt.gateway.options import GroupOptions, RoutingOptions
from scripts.benchmarks.sides import ramp
from scripts.benchmarks.sides.server_shapes import NUM_REPLICAS, TENSOR_PARALLEL, replica
from scripts.benchmarks.sides.simulated_fleet import SimulatedFleet

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from scripts.benchmarks.sides.server_shapes import Shape

FEW, MANY = "tp8", "replicas"
THRESHOLD = 63
"""Published: below 64 the one, from 64 on the others."""
FULL_CONCURRENCY = 256
"""Where the replicas are taken to reach 17,000 tokens/s: 32 requests each. Not published."""
TOKENS = (150, 250)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--level-s", type=float, default=20.0, help="seconds of each step of the load")
    parser.add_argument("--threshold", type=int, default=THRESHOLD)
    parser.add_argument("--hysteresis", type=int, default=8)
    parser.add_argument("--plot", type=Path, help="SVG file to write")
    options = parser.parse_args()
    groups = _groups(FULL_CONCURRENCY)
    sides: list[tuple[str, Sequence[ramp.Step]]] = [
        ("balanced", _ramp(groups, _switch(options.threshold, options.hysteresis), options.level_s)),
        (FEW, _ramp({FEW: groups[FEW]}, None, options.level_s)),
        (MANY, _ramp({MANY: groups[MANY]}, None, options.level_s)),
    ]
    print("estimate: simulated, from published throughputs\n")
    print("\n".join(ramp.table(sides)))
    print("\nthe concurrency from which replicas make more tokens/s, by where they reach 17,000 tokens/s:\n")
    print("\n".join(_crossings()))
    print("\nswitches in 10 minutes of a load that swings around the threshold, by hysteresis:\n")
    print("\n".join(_swings(groups, options.threshold)))
    if options.plot is not None:
        title = "Dynamic load balancing, simulated from published throughputs (estimate)"
        options.plot.parent.mkdir(parents=True, exist_ok=True)
        options.plot.write_text(ramp.plot(title, sides, FEW))
    return 0


def _groups(full_concurrency: int) -> Mapping[str, Sequence[Shape]]:
    return {FEW: [TENSOR_PARALLEL], MANY: [replica(full_concurrency)] * NUM_REPLICAS}


def _switch(threshold: int, hysteresis: int) -> GroupOptions:
    return GroupOptions(few=FEW, many=MANY, threshold=threshold, hysteresis=hysteresis)


def _ramp(groups: Mapping[str, Sequence[Shape]], switch: GroupOptions | None, level_s: float) -> list[ramp.Step]:
    fleet = SimulatedFleet(groups, RoutingOptions(groups=switch))
    fleet.run(lambda at_s: ramp.wanted(at_s, level_s), level_s * len(ramp.LEVELS) + 60, tokens=TOKENS)
    return ramp.steps(fleet.done, level_s, FEW)


def _crossings() -> list[str]:
    lines = ["| 17,000 tokens/s at | tokens/s of 64 over the replicas | of 63 over tp8 | replicas ahead from |"]
    lines.append("|---|---|---|---|")
    for full in (128, 256, 512):
        each = replica(full)

        def together(num_requests: int, each: Shape = each) -> float:
            most, some = -(-num_requests // NUM_REPLICAS), num_requests % NUM_REPLICAS or NUM_REPLICAS
            return some * each.tokens_per_s(most) + (NUM_REPLICAS - some) * each.tokens_per_s(most - 1)

        ahead = next(n for n in range(1, 512) if together(n) > TENSOR_PARALLEL.tokens_per_s(n))
        lines.append(f"| {full} at once | {together(64):,.0f} | {TENSOR_PARALLEL.tokens_per_s(63):,.0f} | {ahead} |")
    return lines


def _swings(groups: Mapping[str, Sequence[Shape]], threshold: int) -> list[str]:
    lines = ["| hysteresis | switches | requests at once, least to most |", "|---|---|---|"]
    for hysteresis in (0, 4, 8, 16, 32):
        fleet = SimulatedFleet(groups, RoutingOptions(groups=_switch(threshold, hysteresis)))
        fleet.run(lambda _: 78, 600, tokens=TOKENS, think_s=0.5)
        seen = [count for at_s, count in fleet.concurrency if at_s > 60]
        lines.append(f"| {hysteresis} | {len(fleet.switches)} | {min(seen)} to {max(seen)} |")
    return lines


if __name__ == "__main__":
    sys.exit(main())

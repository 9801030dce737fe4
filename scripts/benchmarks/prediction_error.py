"""How well the roofline predicts published speeds that it has not seen: a table per card and kind.

Usage: python scripts/benchmarks/prediction_error.py [--splits 50]
"""

from __future__ import annotations

import argparse
import statistics
from collections import defaultdict
from typing import TYPE_CHECKING

from scalellm_trt.predict.fitting import Constants, Errors, errors, fit, halves, relative_error
from scalellm_trt.predict.measurements import beats_the_roof, passes, usable_passes

if TYPE_CHECKING:
    from collections.abc import Callable

    from scalellm_trt.predict.measurements import Passes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--splits", type=int, default=50, help="random halves, seeded 0, 1, …")
    splits = parser.parse_args().splits
    points = usable_passes()
    seen: list[Errors] = []
    unseen: list[tuple[Errors, list[tuple[Passes, float]]]] = []
    for seed in range(splits):
        train, test = halves(points, seed)
        constants = fit(train)
        seen.append(errors(train, constants))
        unseen.append((errors(test, constants), [(each, relative_error(each, constants)) for each in test]))
    print(f"{len(points)} points, {splits} random halves per card; |predicted - measured| / measured")
    print_halves("fitted half", seen)
    print_halves("other half", [each for each, _ in unseen])
    judged = [pair for _, pairs in unseen for pair in pairs]
    print_groups("kind", judged, lambda each: each.point.kind)
    print_groups("card", judged, lambda each: each.point.gpu)
    print_constants(fit(points))
    for each in passes():
        if beats_the_roof(each):
            print(
                f"\nrejected, beats the roof: {each.point.gpu} {each.point.model} {each.point.value} {each.point.unit}"
            )


def print_halves(name: str, found: list[Errors]) -> None:
    medians = sorted(each.median for each in found)
    mean, p90 = (statistics.median(values) for values in ([e.mean for e in found], [e.p90 for e in found]))
    print(
        f"{name:<12} median {statistics.median(medians):6.1%} (splits {medians[0]:.1%} to {medians[-1]:.1%})"
        f"  mean {mean:6.1%}  p90 {p90:6.1%}"
    )


def print_groups(title: str, judged: list[tuple[Passes, float]], key: Callable[[Passes], str]) -> None:
    groups: dict[str, list[float]] = defaultdict(list)
    members: dict[str, set[int]] = defaultdict(set)
    for each, error in judged:
        groups[key(each)].append(error)
        members[key(each)].add(id(each))
    print(f"\n{title:<12} points  median   mean")
    for name, found in sorted(groups.items()):
        print(f"{name:<12} {len(members[name]):6d} {statistics.median(found):7.1%} {statistics.fmean(found):6.1%}")


def print_constants(constants: Constants) -> None:
    print("\nconstants of all points: MFU of prefill by card/multiplication, MBU of decoding by card/width")
    for name, table in (("MFU", constants.mfu), ("MBU", constants.mbu)):
        print(f"{name}: " + ", ".join(f"{key} {value:.2f}" for key, value in sorted(table.items())))


if __name__ == "__main__":
    main()

"""Fit MFU and MBU to published points, and say how well they predict the points that they have not seen."""

from __future__ import annotations

import math
import random
import statistics
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from scalellm_trt.predict.measurements import Passes
    from scalellm_trt.predict.roofline import Gemm, Pass, Width

    FloatArray = NDArray[np.float64]

GRID = np.round(np.arange(0.20, 1.001, 0.01), 2)
ROUNDS = 3
PRIOR_WEIGHT = 0.5  # points' worth of pull towards the constant over all cards
START = 0.6


@dataclass(frozen=True, slots=True, kw_only=True)
class Constants:
    """MFU by `card/gemm`, MBU by `card/width`; those over all cards stand in for a card that was not seen."""

    mfu: Mapping[str, float]
    mbu: Mapping[str, float]
    mfu_of_any: Mapping[str, float]
    mbu_of_any: Mapping[str, float]

    def of(self, gpu: str, gemm: Gemm, width: Width) -> tuple[float, float]:
        """Return (MFU, MBU) of a card, or those over all cards where it was not among the points."""
        mfu = self.mfu.get(f"{gpu}/{gemm}", self.mfu_of_any.get(gemm, START))
        return mfu, self.mbu.get(f"{gpu}/{width}", self.mbu_of_any.get(width, START))


@dataclass(frozen=True, slots=True, kw_only=True)
class Errors:
    """Absolute relative errors of predictions, as shares of the measured value."""

    median: float
    mean: float
    p90: float


def fit(points: Sequence[Passes]) -> Constants:
    """Return the constants with the smallest mean |log(predicted / measured)|, each card pulled towards all cards."""
    of_any = _descend(points, lambda each: (each.gemm, each.width), {}, {})
    mfu_of_any, mbu_of_any = of_any
    mfu, mbu = _descend(
        points,
        lambda each: (f"{each.point.gpu}/{each.gemm}", f"{each.point.gpu}/{each.width}"),
        {f"{each.point.gpu}/{each.gemm}": mfu_of_any[each.gemm] for each in points},
        {f"{each.point.gpu}/{each.width}": mbu_of_any[each.width] for each in points},
    )
    return Constants(mfu=mfu, mbu=mbu, mfu_of_any=mfu_of_any, mbu_of_any=mbu_of_any)


def errors(points: Iterable[Passes], constants: Constants) -> Errors:
    """Compare predictions with what was measured."""
    found = sorted(relative_error(each, constants) for each in points)
    rank = min(len(found) - 1, math.ceil(0.9 * len(found)) - 1)
    return Errors(median=statistics.median(found), mean=statistics.fmean(found), p90=found[rank])


def relative_error(each: Passes, constants: Constants) -> float:
    """Return |predicted - measured| / measured of a point's duration."""
    measured = each.point.seconds
    return abs(each.seconds(*constants.of(each.point.gpu, each.gemm, each.width)) - measured) / measured


def halves(points: Sequence[Passes], seed: int) -> tuple[list[Passes], list[Passes]]:
    """Deal the points of each card out to two halves, at random."""
    by_gpu: dict[str, list[Passes]] = defaultdict(list)
    for each in points:
        by_gpu[each.point.gpu].append(each)
    chance = random.Random(seed)
    train: list[Passes] = []
    test: list[Passes] = []
    for gpu in sorted(by_gpu):
        shuffled = chance.sample(by_gpu[gpu], len(by_gpu[gpu]))
        middle = (len(shuffled) + chance.randrange(2)) // 2
        train += shuffled[:middle]
        test += shuffled[middle:]
    return train, test


def split_errors(points: Sequence[Passes], seeds: Iterable[int]) -> list[Errors]:
    """Fit on one half and judge the other, once per seed."""
    found = []
    for seed in seeds:
        train, test = halves(points, seed)
        found.append(errors(test, fit(train)))
    return found


def _descend(
    points: Sequence[Passes],
    keys: Callable[[Passes], tuple[str, str]],
    mfu_prior: Mapping[str, float],
    mbu_prior: Mapping[str, float],
) -> tuple[dict[str, float], dict[str, float]]:
    """Improve one constant after the other over the grid, the others held, until nothing is left to gain."""
    by_mfu: dict[str, list[Passes]] = defaultdict(list)
    by_mbu: dict[str, list[Passes]] = defaultdict(list)
    for each in points:
        mfu_key, mbu_key = keys(each)
        by_mfu[mfu_key].append(each)
        by_mbu[mbu_key].append(each)
    mfu = {key: mfu_prior.get(key, START) for key in by_mfu}
    mbu = {key: mbu_prior.get(key, START) for key in by_mbu}
    for _ in range(ROUNDS):
        for key, members in by_mfu.items():
            costs = sum(_log_error(each, GRID, mbu[keys(each)[1]]) for each in members)
            mfu[key] = _cheapest(costs, mfu_prior.get(key))
        for key, members in by_mbu.items():
            costs = sum(_log_error(each, mfu[keys(each)[0]], GRID) for each in members)
            mbu[key] = _cheapest(costs, mbu_prior.get(key))
    return mfu, mbu


def _log_error(each: Passes, mfu: FloatArray | float, mbu: FloatArray | float) -> FloatArray:
    """Return |log(predicted / measured)| for every value of the constant that is an array: (len(GRID),)."""
    seconds = np.zeros(len(GRID))
    if each.prefill is not None:
        seconds += _pass_seconds(each.prefill, mfu, mbu)
    if each.step is not None:
        seconds += each.num_steps * _pass_seconds(each.step, mfu, mbu)
    errors_of_grid: FloatArray = np.abs(np.log(seconds / each.point.seconds))
    return errors_of_grid


def _pass_seconds(one: Pass, mfu: FloatArray | float, mbu: FloatArray | float) -> FloatArray:
    seconds: FloatArray = np.maximum(one.compute_s / (mfu * one.mfu_share), one.memory_s / mbu) + one.fixed_s
    return seconds


def _cheapest(costs: FloatArray | int, prior: float | None) -> float:
    pull = 0.0 if prior is None else PRIOR_WEIGHT * np.abs(np.log(GRID / prior))
    return float(GRID[int(np.argmin(costs + pull))])

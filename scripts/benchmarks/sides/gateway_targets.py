"""Measured cells of a gateway's benchmark in; each target with what was found, and whether it is met, out."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

MANY = (32, 64, 128)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One side at one number of streams and one pace, in one round.

    Attributes:
        pace: `paced` (a step each 10 ms), `unpaced`, or `mock` (paced, without tritonserver).
        cpu_us: of the side's own processes, for each token.
        server_cpu_us, client_cpu_us: of tritonserver and of the measuring client, for each token.
        lag_p50_ms, lag_p99_ms: from before the model sent a token to its arrival at the client.
    """

    round: int
    side: str
    streams: int
    pace: str
    tokens_per_s: float
    cpu_us: float
    server_cpu_us: float
    client_cpu_us: float
    ttft_ms: float
    lag_p50_ms: float
    lag_p99_ms: float
    events_per_token: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A target of a table; `found` is None where its sides were not measured."""

    target: str
    must: str
    good: str
    found: float | None
    result: str


def median(cells: Iterable[Cell], value: Callable[[Cell], float]) -> float | None:
    """Return the median of a value, None of no cells."""
    found = [value(cell) for cell in cells]
    return statistics.median(found) if found else None


def table(cells: Sequence[Cell], disconnects_ms: Sequence[float], ours: str, reference: str) -> list[Verdict]:
    """Return every target; ratios are medians over cells that were measured one after the other in the same round."""
    found: dict[str, float | None] = {
        "cpu_reference": _worst(cells, _cpu, ours, reference, MANY, "paced"),
        "cpu": _each_worst(cells, _cpu, ours, MANY, "paced"),
        "cpu_mock": median(_of(cells, ours, (128,), "mock"), _cpu),
        "tokens_few": _least(cells, ours, (1, 8, 32), ("paced", "unpaced")),
        "tokens_many": _least(cells, ours, (64, 128), ("paced", "unpaced")),
        "lag": _most_added(cells, lambda cell: cell.lag_p50_ms, ours, (1, 8, 32)),
        "lag_p99": median(_of(cells, ours, (32,), "paced"), lambda cell: cell.lag_p99_ms),
        "ttft_1": _most_added(cells, lambda cell: cell.ttft_ms, ours, (1,)),
        "ttft_32": _most_added(cells, lambda cell: cell.ttft_ms, ours, (32,)),
        "ttft_64": _most_added(cells, lambda cell: cell.ttft_ms, ours, (64,)),
        "disconnect": statistics.median(disconnects_ms) if disconnects_ms else None,
        "cpu_litellm": _worst(cells, _cpu, ours, "litellm", (8, 32), "paced"),
        "cpu_smg": _worst(cells, _cpu, ours, "smg", MANY, "paced"),
        "two_workers": _worst(cells, _cpu, "two workers", "one worker", (256,), "mock"),
    }
    return [_verdict(name, found[name]) for name in _TARGETS]


# name → what it is, must, good, and whether less is better
_TARGETS: Mapping[str, tuple[str, float, float, str]] = {
    "cpu_reference": ("CPU per token / reference gateway, N=32-128, 10 ms step (worst N)", 0.55, 0.40, "x"),
    "cpu": ("CPU per token behind tritonserver, N=32-128, 10 ms step (worst N)", 130, 95, "us"),
    "cpu_mock": ("CPU per token, mock upstream, N=128, 10 ms step", 55, 37, "us"),
    "tokens_few": ("tokens/s / direct client, N<=32 (worst N and pace)", 0.95, 0.98, ">x"),
    "tokens_many": ("tokens/s / direct client, N=64-128 (worst N and pace)", 0.80, 0.95, ">x"),
    "lag": ("added token lag p50, N<=32, 10 ms step (worst N)", 0.3, 0.2, "ms"),
    "lag_p99": ("token lag p99, N=32, 10 ms step", 4, 2, "ms"),
    "ttft_1": ("added TTFT p50, N=1", 2, 1, "ms"),
    "ttft_32": ("added TTFT p50, N=32", 15, 3, "ms"),
    "ttft_64": ("added TTFT p50, N=64", 20, 5, "ms"),
    "disconnect": ("client's disconnect seen by the model, median", 20, 5, "ms"),
    "cpu_litellm": ("CPU per token / LiteLLM, N=8-32 (worst N)", 0.12, 0.08, "x"),
    "cpu_smg": ("CPU per token / smg as plain proxy, N=32-128 (worst N)", 1.5, 1.1, "x"),
    "two_workers": ("CPU per token of two workers / one, mock, N=256", 1.1, 1.0, "x"),
}


def _verdict(name: str, found: float | None) -> Verdict:
    target, must, good, unit = _TARGETS[name]
    is_more = unit.startswith(">")
    result = "not measured"
    if found is not None:
        meets = [found >= limit if is_more else found <= limit for limit in (must, good)]
        result = "good" if meets[1] else "must" if meets[0] else "MISSED"
    sign, unit = (">=" if is_more else "<="), unit.removeprefix(">")
    return Verdict(
        target=target, must=f"{sign} {must:g} {unit}", good=f"{sign} {good:g} {unit}", found=found, result=result
    )


def _cpu(cell: Cell) -> float:
    return cell.cpu_us


def _of(cells: Iterable[Cell], side: str, streams: Sequence[int], pace: str) -> list[Cell]:
    return [cell for cell in cells if cell.side == side and cell.streams in streams and cell.pace == pace]


def _ratios(
    cells: Sequence[Cell], value: Callable[[Cell], float], one: str, other: str, streams: int, pace: str
) -> list[float]:
    others = {cell.round: value(cell) for cell in _of(cells, other, (streams,), pace)}
    mine = _of(cells, one, (streams,), pace)
    return [value(cell) / others[cell.round] for cell in mine if cell.round in others]


def _worst(
    cells: Sequence[Cell], value: Callable[[Cell], float], one: str, other: str, streams: Sequence[int], pace: str
) -> float | None:
    ratios = [_ratios(cells, value, one, other, number, pace) for number in streams]
    return max((statistics.median(found) for found in ratios if found), default=None)


def _least(cells: Sequence[Cell], ours: str, streams: Sequence[int], paces: Sequence[str]) -> float | None:
    ratios = [
        _ratios(cells, lambda cell: cell.tokens_per_s, ours, "direct", number, pace)
        for number in streams
        for pace in paces
    ]
    return min((statistics.median(found) for found in ratios if found), default=None)


def _each_worst(
    cells: Sequence[Cell], value: Callable[[Cell], float], side: str, streams: Sequence[int], pace: str
) -> float | None:
    medians = [median(_of(cells, side, (number,), pace), value) for number in streams]
    return max((each for each in medians if each is not None), default=None)


def _most_added(
    cells: Sequence[Cell], value: Callable[[Cell], float], ours: str, streams: Sequence[int]
) -> float | None:
    added = []
    for number in streams:
        direct = {cell.round: value(cell) for cell in _of(cells, "direct", (number,), "paced")}
        mine = _of(cells, ours, (number,), "paced")
        differences = [value(cell) - direct[cell.round] for cell in mine if cell.round in direct]
        added += [statistics.median(differences)] if differences else []
    return max(added, default=None)

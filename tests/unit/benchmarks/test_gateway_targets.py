"""How the gateway's benchmark judges: medians of pairs within a round, the worst of several, the right direction."""

from __future__ import annotations

from typing import Any

from scripts.benchmarks.sides.gateway_targets import Cell, Verdict, table


def _cell(side: str, streams: int = 32, *, pace: str = "paced", number: int = 0, **values: float) -> Cell:
    base: dict[str, Any] = {
        "tokens_per_s": 1000.0, "cpu_us": 50.0, "server_cpu_us": 100.0, "client_cpu_us": 10.0, "ttft_ms": 5.0,
        "lag_p50_ms": 1.0, "lag_p99_ms": 2.0, "events_per_token": 1.0,
    }  # fmt: skip
    return Cell(round=number, side=side, streams=streams, pace=pace, **{**base, **values})


def _verdicts(cells: list[Cell], disconnects: list[float] | None = None) -> dict[str, Verdict]:
    found = table(cells, disconnects or [], "ours", "reference")
    return {verdict.target.split(",")[0]: verdict for verdict in found}


def test_ratios_pair_within_a_round_and_the_worst_counts() -> None:
    cells = []
    for number, slow in enumerate((1.0, 3.0, 2.0)):
        cells += [
            _cell("reference", number=number, cpu_us=100 * slow),
            _cell("ours", number=number, cpu_us=30 * slow),
            _cell("reference", 64, number=number, cpu_us=100 * slow),
            _cell("ours", 64, number=number, cpu_us=50 * slow),
        ]
    found = _verdicts(cells)["CPU per token / reference gateway"]
    assert (found.found, found.result) == (0.5, "must")
    assert (found.must, found.good) == ("<= 0.55 x", "<= 0.4 x")


def test_more_tokens_are_better_and_less_of_all_else() -> None:
    cells = [_cell("direct"), _cell("ours", tokens_per_s=990.0, lag_p50_ms=1.1, ttft_ms=30.0)]
    found = _verdicts(cells, [1.0, 30.0, 2.0])
    assert found["tokens/s / direct client"].result == "not measured", "N=64-128 stands last and is missing"
    assert {name: found[name].result for name in ("added token lag p50", "client's disconnect seen by the model")} == {
        "added token lag p50": "good",
        "client's disconnect seen by the model": "good",
    }
    by_target = {verdict.target: verdict.result for verdict in table(cells, [], "ours", "reference")}
    assert by_target["tokens/s / direct client, N<=32 (worst N and pace)"] == "good"
    assert by_target["added TTFT p50, N=32"] == "MISSED"
    assert by_target["added TTFT p50, N=1"] == "not measured"

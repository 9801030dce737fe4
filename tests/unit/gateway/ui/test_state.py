"""The JSON that the page reads: its keys are promised, and several workers are one gateway in it."""

from __future__ import annotations

import dataclasses
import os
import time
from typing import TYPE_CHECKING, Any

import orjson

from scalellm_trt.gateway.ui import board, state
from scalellm_trt.gateway.ui.latency import bucket
from scalellm_trt.gateway.ui.window import Counts, LastError, Report, Series

if TYPE_CHECKING:
    from pathlib import Path

ERROR = LastError(message="the engine died", time_s=1000.0)
ONE = Report(
    age_s=100.0,
    window_s=60.0,
    running=3,
    waiting=1,
    connections=4,
    total=Counts(requests=50, generation_tokens=900, errors={"503": 2}),
    minute=Counts(
        requests=30,
        prompt_tokens=600,
        told_prompt_tokens=400,
        cached_tokens=100,
        generation_tokens=1200,
        cancelled=2,
        errors={"429": 1},
    ),
    ttft={bucket(0.1): 30},
    itl={bucket(0.02): 99, bucket(0.2): 1},
    series=Series(requests=[0.0, 1.0], generation_tokens=[10.0, 20.0], running=[2, 3], waiting=[0, 1]),
    last_error=ERROR,
)


def _keys(value: Any) -> Any:
    """Return the shape: keys of objects, one element of lists."""
    if isinstance(value, dict):
        return {key: _keys(each) for key, each in value.items()}
    return [_keys(value[0])] if isinstance(value, list) and value else type(value).__name__


def test_the_shape_of_the_state_is_the_promised_one() -> None:
    whole = state.State(
        version="1",
        time_s=1.0,
        age_s=2.0,
        workers=1,
        needs_key=False,
        models=[state.Model(name="m", can_chat=True, max_seq_len=2048)],
        servers=[
            state.Server(url="h:1", state="ready", running=3, waiting=1, connections=4, last_error=ERROR),
        ],
        queue=state.Queue(running=3, waiting=1, max_running=512, max_waiting=512),
        minute=state.minute(ONE),
        total=ONE.total,
        series=ONE.series,
        tenants=[state.Tenant(name="acme", values={"tokens": 3.0})],
    )
    percentiles = {"count": "int", "p50": "float", "p90": "float", "p99": "float"}
    counts = dict.fromkeys(
        ("requests", "prompt_tokens", "told_prompt_tokens", "cached_tokens", "generation_tokens", "cancelled"), "int"
    )
    assert _keys(orjson.loads(orjson.dumps(whole))) == {
        "schema": "int",
        "version": "str",
        "time_s": "float",
        "age_s": "float",
        "workers": "int",
        "needs_key": "bool",
        "models": [{"name": "str", "can_chat": "bool", "max_seq_len": "int"}],
        "servers": [
            {
                "url": "str",
                "state": "str",
                "running": "int",
                "waiting": "int",
                "connections": "int",
                "last_error": {"message": "str", "time_s": "float"},
            }
        ],
        "queue": {"running": "int", "waiting": "int", "max_running": "int", "max_waiting": "int"},
        "minute": {
            "seconds": "float",
            "requests_per_s": "float",
            "prompt_tokens_per_s": "float",
            "generation_tokens_per_s": "float",
            "ttft_ms": percentiles,
            "itl_ms": percentiles,
            "cached_share": "float",
            "errors": {"429": "int"},
            "cancelled": "int",
        },
        "total": {**counts, "errors": {"503": "int"}},
        "series": {"requests": ["float"], "generation_tokens": ["float"], "running": ["int"], "waiting": ["int"]},
        "tenants": [{"name": "str", "values": {"tokens": "float"}}],
    }


def test_a_minute_is_rates_percentiles_and_shares() -> None:
    minute = state.minute(ONE)
    assert (minute.requests_per_s, minute.prompt_tokens_per_s, minute.generation_tokens_per_s) == (0.5, 10, 20)
    assert minute.cached_share == 0.25
    assert (minute.ttft_ms.count, minute.itl_ms.count) == (30, 100)
    assert minute.itl_ms.p99 is not None
    assert 19 < minute.itl_ms.p99 < 21


def test_where_nothing_happened_nothing_is_made_up() -> None:
    minute = state.minute(dataclasses.replace(ONE, minute=Counts(prompt_tokens=9), ttft={}, itl={}))
    assert (minute.cached_share, minute.ttft_ms.p50, minute.itl_ms.p99) == (None, None, None)


def test_workers_add_up_and_their_seconds_are_counted_from_now() -> None:
    later = LastError(message="gone", time_s=2000.0)
    young = dataclasses.replace(
        ONE,
        age_s=1.0,
        window_s=1.0,
        minute=Counts(requests=2, errors={"429": 1, "500": 4}),
        ttft={bucket(0.1): 1, bucket(9.0): 1},
        series=Series(requests=[5.0], generation_tokens=[7.0], running=[1], waiting=[0]),
        last_error=later,
    )
    silent = dataclasses.replace(ONE, last_error=None)
    both = state.merged([ONE, young])
    assert (both.age_s, both.window_s, both.running, both.waiting, both.connections) == (100, 60, 6, 2, 8)
    assert (both.minute.requests, both.minute.errors) == (32, {"429": 2, "500": 4})
    assert both.ttft == {bucket(0.1): 31, bucket(9.0): 1}
    assert (both.series.requests, both.series.running) == ([0.0, 6.0], [2, 4])
    assert both.last_error == later
    assert state.merged([silent, ONE]).last_error == ERROR
    assert state.merged([silent]).last_error is None


def test_a_report_that_another_worker_reads_is_the_one_that_was_posted(tmp_path: Path) -> None:
    board.Board(tmp_path).post(ONE)
    (posted,) = tmp_path.iterdir()
    # As if another process had written it: one's own is never read back.
    assert board.Board(tmp_path).others() == []
    posted.rename(tmp_path / "report-1.json")
    assert board.Board(tmp_path).others() == [ONE]


def test_a_worker_that_has_gone_silent_is_forgotten(tmp_path: Path) -> None:
    board.Board(tmp_path).post(ONE)
    (posted,) = tmp_path.iterdir()
    other = posted.rename(tmp_path / "report-1.json")
    long_ago = time.time() - board.STALE_S - 1
    os.utime(other, (long_ago, long_ago))
    assert board.Board(tmp_path).others() == []
    assert not other.exists()

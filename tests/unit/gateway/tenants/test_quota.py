from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalellm_trt.gateway.tenants.bucket import Bucket
from scalellm_trt.gateway.tenants.quota import Levels, Quota, RefusedError
from scalellm_trt.gateway.tenants.shared_cells import SharedCells
from scalellm_trt.gateway.tenants.tenant import Tenant


class Clock:
    """Seconds, as the test wants them."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def _quota(clock: Clock, cells: SharedCells | None = None, worker: int = 0, **limits: int) -> Quota:
    tenant = Tenant(name="a", key_names=(), **limits)  # type: ignore[arg-type]  # limits only
    quota = Quota(tenant, (cells or SharedCells(1)).row(0, worker), clock)
    quota.fill()
    return quota


def _enters(quota: Quota) -> bool:
    try:
        quota.enter(Levels())
    except RefusedError:
        return False
    return True


@given(st.integers(1, 1000), st.lists(st.floats(0, 30), min_size=1, max_size=100))
def test_a_bucket_never_gives_more_than_a_minutes_worth_and_what_was_refilled(
    per_minute: int, pauses_s: list[float]
) -> None:
    bucket, level, now_s, taken = Bucket(per_minute), float(per_minute), 0.0, 0
    for pause_s in pauses_s:
        now_s += pause_s
        level = bucket.level(level, pause_s)
        while level >= 1:
            level, taken = level - 1, taken + 1
        assert taken <= per_minute * (1 + now_s / 60) + 1e-6
        assert bucket.level(level, bucket.wait_s(level, 1) + 1e-6) >= 1


def test_over_a_long_time_a_tenant_gets_its_rate() -> None:
    clock = Clock()
    quota = _quota(clock, requests_per_minute=90)
    num_first = sum(_enters(quota) for _ in range(200))
    assert num_first == 90
    num_later = 0
    for _ in range(6000):
        clock.now_s += 0.1
        num_later += _enters(quota)
    assert num_later == pytest.approx(900, rel=0.01)


def test_a_refused_request_is_told_when_to_come_again_and_takes_nothing() -> None:
    clock, levels = Clock(), Levels()
    quota = _quota(clock, requests_per_minute=2, tokens_per_minute=60)
    assert _enters(quota)
    assert _enters(quota)
    with pytest.raises(RefusedError) as error:
        quota.enter(levels)
    assert (error.value.reason, error.value.wait_s) == ("requests", 30.0)
    assert (b"x-ratelimit-remaining-requests", b"0") in quota.headers(levels)
    clock.now_s = 29.0
    assert not _enters(quota)
    clock.now_s = 30.0
    assert _enters(quota)


def test_tokens_are_reserved_and_what_was_not_used_comes_back() -> None:
    clock, levels = Clock(), Levels()
    quota = _quota(clock, tokens_per_minute=100)
    quota.enter(levels)
    quota.reserve(80, levels)
    assert quota.headers(levels) == [
        (b"x-ratelimit-limit-tokens", b"100"),
        (b"x-ratelimit-remaining-tokens", b"20"),
        (b"x-ratelimit-reset-tokens", b"48.000s"),
    ]
    with pytest.raises(RefusedError) as error:
        quota.reserve(30, Levels())
    assert (error.value.reason, error.value.wait_s) == ("tokens", 6.0)
    quota.leave(60)
    quota.reserve(80, levels)
    assert levels.tokens == 0


def test_what_can_never_fit_has_no_time_to_come_again() -> None:
    with pytest.raises(RefusedError) as error:
        _quota(Clock(), tokens_per_minute=100).reserve(101, Levels())
    assert error.value.wait_s == float("inf")


def test_requests_at_once_are_counted_until_they_end() -> None:
    quota = _quota(Clock(), max_concurrent=2)
    assert [_enters(quota) for _ in range(3)] == [True, True, False]
    quota.leave(0)
    assert [_enters(quota) for _ in range(2)] == [True, False]


def test_what_a_dead_worker_had_open_is_forgotten() -> None:
    cells = SharedCells(1, num_workers=2)
    first, second = (_quota(Clock(), cells, worker, max_concurrent=3) for worker in range(2))
    assert [_enters(first), _enters(first), _enters(second), _enters(second)] == [True, True, True, False]
    cells.forget(0)
    assert [_enters(second) for _ in range(3)] == [True, True, False]


def test_limits_hold_over_processes() -> None:
    """Four processes take what they can at once: all together get what one could have."""
    num_workers, limit = 4, 5000
    cells = SharedCells(1, num_workers)
    _quota(Clock(), cells, requests_per_minute=limit, max_concurrent=limit * 2)
    ends = []
    for worker in range(num_workers):
        reading, writing = os.pipe()
        if not os.fork():
            quota = Quota(
                Tenant(name="a", key_names=(), requests_per_minute=limit, max_concurrent=limit * 2),
                cells.row(0, worker),
                Clock(),
            )
            taken = sum(_enters(quota) for _ in range(limit // 2))
            os.write(writing, b"%d" % taken)
            os._exit(0)
        os.close(writing)
        ends.append(reading)
    all_taken = [int(os.read(end, 100)) for end in ends]
    for end in ends:
        os.close(end)
        os.wait()
    assert sum(all_taken) == limit
    with cells.row(0) as _:
        assert cells.row(0).num_open() == limit

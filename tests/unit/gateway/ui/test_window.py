from __future__ import annotations

import sys

import pytest

from scalellm_trt.gateway.ui import state
from scalellm_trt.gateway.ui.latency import percentile_s
from scalellm_trt.gateway.ui.pace import Pace
from scalellm_trt.gateway.ui.window import WINDOW_S, Live, Report, Window


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def _report(window: Window) -> Report:
    return window.report(waiting=0, connections=0)


def _pass_seconds(window: Window, clock: Clock, number: int) -> None:
    for _ in range(number):
        clock.now_s += 1
        window.sample(waiting=0)


def test_what_happened_more_than_a_minute_ago_is_in_the_total_only(clock: Clock) -> None:
    live = Live(clock)
    window = Window(live)
    live.begin(10)
    live.note_ttft(0.5)
    live.note_error(429)
    live.cancelled += 1
    _pass_seconds(window, clock, WINDOW_S)
    live.begin(7)
    live.note_cached(3, 7)
    report = _report(window)
    assert (report.minute.requests, report.minute.prompt_tokens) == (2, 17)
    assert report.minute.errors == {"429": 1}
    assert sum(report.ttft.values()) == 1
    _pass_seconds(window, clock, 1)
    report = _report(window)
    assert (report.minute.requests, report.minute.prompt_tokens, report.minute.cancelled) == (1, 7, 0)
    assert (report.minute.cached_tokens, report.minute.told_prompt_tokens) == (3, 7)
    assert (report.minute.errors, report.ttft) == ({}, {})
    assert (report.total.requests, report.total.prompt_tokens, report.total.cancelled) == (2, 17, 1)
    assert report.total.errors == {"429": 1}
    assert report.window_s == WINDOW_S
    assert report.age_s == WINDOW_S + 1


def test_rates_of_a_young_gateway_are_over_its_age(clock: Clock) -> None:
    live = Live(clock)
    window = Window(live)
    for _ in range(20):
        live.begin(100)
    assert state.minute(_report(window)).requests_per_s == 20
    _pass_seconds(window, clock, 10)
    minute = state.minute(_report(window))
    assert (minute.seconds, minute.requests_per_s, minute.prompt_tokens_per_s) == (10, 2, 200)


def test_a_late_sample_makes_no_peak(clock: Clock) -> None:
    live = Live(clock)
    window = Window(live)
    live.generation_tokens += 300
    clock.now_s += 3
    window.sample(waiting=0)
    assert list(_report(window).series.generation_tokens) == [100]


def test_what_a_stopped_process_knew_before_is_not_called_the_last_minute(clock: Clock) -> None:
    live = Live(clock)
    window = Window(live)
    live.begin(1)
    _pass_seconds(window, clock, 5)
    clock.now_s += 3600
    report = _report(window)
    assert report.minute.requests == 0
    assert len(report.series.requests) == 0
    window.sample(waiting=0)
    live.begin(1)
    _pass_seconds(window, clock, 10)
    minute = state.minute(_report(window))
    assert (minute.seconds, minute.requests_per_s) == (10, 0.1)


def test_a_series_has_a_point_for_each_second_of_the_last_minute(clock: Clock) -> None:
    live = Live(clock)
    window = Window(live)
    for second in range(100):
        live.generation_tokens += second
        clock.now_s += 1
        window.sample(waiting=second % 3)
    series = _report(window).series
    assert series.generation_tokens == list(range(40, 100))
    assert series.waiting == [second % 3 for second in range(40, 100)]
    assert len(series.requests) == len(series.running) == WINDOW_S


def test_memory_does_not_grow_with_time_or_traffic(clock: Clock) -> None:
    live = Live(clock)
    window = Window(live)

    def size() -> int:
        copies = window._copies
        return len(copies) * (sys.getsizeof(copies[0].ttft) + sys.getsizeof(copies[0].itl))

    _pass_seconds(window, clock, WINDOW_S)
    before = size()
    pace = Pace(live, is_stream=True)
    for number in range(1000):
        live.begin(5)
        pace.note(3)
        live.note_ttft(number / 100)
        _pass_seconds(window, clock, 1)
    assert size() == before < 400_000


def test_tokens_that_came_together_share_the_time_since_the_ones_before(clock: Clock) -> None:
    live = Live(clock)
    window = Window(live)
    pace = Pace(live, is_stream=True)
    pace.note(1)
    clock.now_s += 0.3
    pace.note(3)
    clock.now_s += 0.4
    pace.note(0)
    clock.now_s += 0.4
    pace.note(1)
    report = _report(window)
    assert report.minute.generation_tokens == 5
    assert sum(report.itl.values()) == 4
    assert percentile_s(report.itl, 0.75) == pytest.approx(0.1, rel=0.026)
    assert percentile_s(report.itl, 0.99) == pytest.approx(0.8, rel=0.026)


def test_answers_that_are_not_one_stream_have_no_time_between_tokens(clock: Clock) -> None:
    live = Live(clock)
    pace = Pace(live, is_stream=False)
    for _ in range(3):
        clock.now_s += 1
        pace.note(2)
    assert live.generation_tokens == 6
    assert not any(live.itl)


def test_what_runs_is_what_began_and_has_not_ended(clock: Clock) -> None:
    live = Live(clock)
    window = Window(live)
    live.begin(1)
    live.begin(1)
    live.end()
    assert _report(window).running == 1
    live.note_server_error("gone")
    error = _report(window).last_error
    assert error is not None
    assert error.message == "gone"

"""A server that breaks is left alone, longer each time; one that does not answer is not used."""

from __future__ import annotations

import pytest

from scalellm_trt.gateway.fleet.health import FIRST_EJECTION_S, FORGIVEN_S, MAX_EJECTION_S, Health


class Watched(Health):
    """A server with a clock of its own."""

    def __init__(self) -> None:
        self.now_s = 100.0
        super().__init__(3, lambda: self.now_s, silent_after_s=2.0)

    def break_and_wait(self) -> float:
        """Break, answer probes well, and return after how long it may be used again."""
        self.on_broken("reset")
        began_s = self.now_s
        while not self.is_good:
            self.now_s += 0.05
            self.on_probe(None)
        return self.now_s - began_s


def test_probes_decide_and_several_failed_ones_say_that_it_is_silent() -> None:
    health = Watched()
    assert health.is_good
    for number in range(3):
        assert health.is_silent is False
        health.on_probe(f"no answer {number}")
        assert not health.is_good
    assert health.is_silent
    assert health.error == "no answer 2"
    health.on_probe(None)
    assert health.is_good
    assert not health.is_silent


def test_a_server_that_breaks_again_and_again_is_left_alone_longer_and_forgiven_in_the_end() -> None:
    health = Watched()
    waits = [health.break_and_wait() for _ in range(9)]
    expected = [min(MAX_EJECTION_S, FIRST_EJECTION_S * 2**number) for number in range(9)]
    assert waits == pytest.approx(expected, rel=0.35)
    health.on_broken("reset")
    assert not health.answers
    health.on_probe(None)
    assert (health.answers, health.is_good) == (True, False)  # better than none
    health.now_s += MAX_EJECTION_S * 1.2 + FORGIVEN_S + 1
    assert health.break_and_wait() == pytest.approx(FIRST_EJECTION_S, rel=0.35)


def test_requests_that_break_together_are_one_failure() -> None:
    health = Watched()
    for _ in range(32):
        health.on_broken("reset")
    health.on_probe(None)
    health.now_s += FIRST_EJECTION_S * 1.3
    assert health.is_good


def test_time_alone_does_not_bring_a_broken_server_back() -> None:
    health = Watched()
    health.on_broken("reset")
    health.now_s += 10
    assert not health.is_good
    health.on_probe(None)
    assert health.is_good


def test_one_failed_probe_is_enough_where_nothing_else_has_come_either() -> None:
    health = Watched()
    health.on_probe("no answer", silence_s=1.9)
    assert not health.is_silent
    health.on_probe("no answer", silence_s=2.0)
    assert health.is_silent
    health.on_probe(None, silence_s=2.0)
    assert not health.is_silent
    health.use(3, 1.0)
    health.on_probe("no answer", silence_s=1.0)
    assert health.is_silent

"""Decode speed does not depend on how many tokens travel together."""

from __future__ import annotations

import pytest

from scripts.benchmarks.sides import decode_phase

Deliveries = list[list[tuple[float, int]]]
PROMPT, NUM_TOKENS, STEP_TOKENS = 17, 48, 256


def _generate(num_streams: int, spacing_s: float) -> Deliveries:
    """Return what an engine delivers whose step takes 30 ms and 0.7 ms for each of its tokens, prompts included.

    A stream's tokens wait for each other until its last delivery is `spacing_s` old.
    """
    now, missing, made = 0.0, [PROMPT] * num_streams, [0] * num_streams
    held, deliveries = [0] * num_streams, [[] for _ in range(num_streams)]  # type: ignore[var-annotated]
    while min(made) < NUM_TOKENS:
        generating = [index for index in range(num_streams) if not missing[index] and made[index] < NUM_TOKENS]
        budget = STEP_TOKENS - len(generating)
        done = list(generating)
        for index in range(num_streams):
            share = min(missing[index], budget)
            budget -= share
            missing[index] -= share
            done += [index] if share and not missing[index] else []
        now += 0.03 + 0.0007 * (STEP_TOKENS - budget)
        for index in done:
            made[index] += 1
            held[index] += 1
            before = deliveries[index][-1][0] if deliveries[index] else float("-inf")
            if now - before >= spacing_s or made[index] == NUM_TOKENS:
                deliveries[index].append((now, held[index]))
                held[index] = 0
    return deliveries


@pytest.mark.parametrize("num_streams", [1, 4, 16, 64])
def test_tokens_that_travel_together_are_as_fast(num_streams: int) -> None:
    apart, together = _generate(num_streams, 0), _generate(num_streams, 0.015 * num_streams)
    assert decode_phase.num_tokens(together) == decode_phase.num_tokens(apart) == num_streams * NUM_TOKENS
    step_s = 0.03 + 0.0007 * num_streams
    assert decode_phase.tokens_per_s(apart) == pytest.approx(num_streams / step_s)
    assert decode_phase.tokens_per_s(together) == pytest.approx(num_streams / step_s)


def test_without_a_window_there_is_no_speed() -> None:
    with pytest.raises(ValueError, match="more tokens"):
        decode_phase.tokens_per_s([[(0.0, 1), (1.0, 1)], [(2.0, 1), (3.0, 1)]])

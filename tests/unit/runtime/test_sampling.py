"""Choosing a token does what `SamplingParams` says, with probabilities that can be counted."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalellm_trt.runtime.engine_api import SamplingParams
from scalellm_trt.runtime.sampling import Chooser, log_probability

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

LOGITS = (2.0, -1.0, 0.5, 3.0, -2.0)
PROMPT = (0, 1)


def choose(
    logits: Sequence[float] | NDArray[np.float32] = LOGITS,
    answer: Sequence[int] = (),
    chooser: Chooser | None = None,
    **sampling: Any,
) -> int:
    row = np.array(logits, np.float32)
    before = row.copy()
    chooser = chooser or make(**sampling)
    ids = np.array([*PROMPT, *answer], np.int64)
    token, _ = chooser.choose(row, int(row.argmax()), ids, len(PROMPT))
    assert np.array_equal(row, before), "the logits belong to the model"
    return token


def make(seed: int = 1, **sampling: Any) -> Chooser:
    return Chooser(SamplingParams(max_tokens=9, **sampling), seed)


def shares(count: int = 4000, **sampling: Any) -> dict[int, float]:
    chooser = make(**sampling)
    drawn = Counter(choose(chooser=chooser) for _ in range(count))
    return {token: number / count for token, number in drawn.items()}


def probabilities(temperature: float, ids: Sequence[int]) -> dict[int, float]:
    weights = {token: float(np.exp(LOGITS[token] / temperature)) for token in ids}
    return {token: weight / sum(weights.values()) for token, weight in weights.items()}


def test_greedy_takes_the_best() -> None:
    assert choose() == 3


def test_the_repetition_penalty_holds_for_prompt_and_answer() -> None:
    assert choose(answer=[3], repetition_penalty=1.4) == 3
    assert choose(answer=[3], repetition_penalty=7.0) == 2  # tokens 3 and 0 are left with 0.43 and 0.29
    assert choose((-3.0, -2.0, -4.0, -9.0, -9.0), repetition_penalty=3.0) == 2  # negative ones are multiplied


@pytest.mark.parametrize(
    ("answer", "sampling", "expected"),
    [
        ([3], {"presence_penalty": 0.9}, 3),
        ([3], {"presence_penalty": 1.1}, 0),
        ([3, 3], {"presence_penalty": 0.9}, 3),  # once, however often
        ([3, 3], {"frequency_penalty": 0.6}, 0),
        ([3], {"frequency_penalty": 0.6}, 3),
        ([], {"presence_penalty": 2.0, "frequency_penalty": 2.0}, 3),  # the prompt does not count
        ([2], {"presence_penalty": -2.0}, 3),
        ([0], {"presence_penalty": -2.0}, 0),
        ([], {"token_bias": ((4, 3.0), (4, 2.5))}, 4),  # ids may repeat
        ([], {"token_bias": ((3, -1.5),)}, 0),
    ],
)
def test_what_changes_the_choice(answer: list[int], sampling: dict[str, Any], expected: int) -> None:
    assert choose(answer=answer, **sampling) == expected


def test_a_stop_token_does_not_come_before_min_tokens() -> None:
    early: dict[str, Any] = {"stop_token_ids": frozenset([3]), "min_tokens": 2}
    assert [choose(answer=[4] * made, **early) for made in range(3)] == [0, 0, 3]


def test_bad_words_are_forbidden_at_their_last_token_only() -> None:
    assert choose(bad_words=((3,),)) == 0
    assert choose(bad_words=((3,), (0,))) == 2
    assert choose(bad_words=((4, 3),)) == 3
    assert choose(answer=[4], bad_words=((4, 3),)) == 0
    assert choose(answer=[1, 4], bad_words=((0, 4, 3),)) == 3
    assert choose(bad_words=((0, 1, 3),)) == 0  # it may begin in the prompt
    assert choose(answer=[4], bad_words=((9, 9, 9, 9, 4, 3),)) == 3


def test_a_forbidden_token_is_not_sampled_either() -> None:
    assert 3 not in shares(300, temperature=1.0, bad_words=((3,),))


@pytest.mark.parametrize("temperature", [0.7, 1.0, 2.5])
def test_shares_are_the_probabilities(temperature: float) -> None:
    assert shares(temperature=temperature) == pytest.approx(probabilities(temperature, range(5)), abs=0.03)


def test_top_k_takes_the_best_and_keeps_their_proportions() -> None:
    assert shares(temperature=2.0, top_k=2) == pytest.approx(probabilities(2.0, (3, 0)), abs=0.03)


def test_top_p_takes_the_fewest_that_reach_it() -> None:
    # Probabilities at 1: token 3 has 0.67, 0 has 0.25, 2 has 0.055.
    assert set(shares(500, temperature=1.0, top_p=0.6)) == {3}
    assert set(shares(500, temperature=1.0, top_p=0.7)) == {3, 0}
    assert set(shares(2000, temperature=1.0, top_p=0.95)) == {3, 0, 2}
    assert shares(temperature=1.0, top_p=0.7) == pytest.approx(probabilities(1.0, (3, 0)), abs=0.03)


def test_top_p_is_a_share_of_what_top_k_left() -> None:
    # Of the three best, 3 and 0 have 0.94.
    assert set(shares(2000, temperature=1.0, top_k=3, top_p=0.93)) == {3, 0}
    assert set(shares(2000, temperature=1.0, top_k=3, top_p=0.96)) == {3, 0, 2}


def test_a_tiny_temperature_is_greedy_and_warns_nobody() -> None:
    assert shares(50, temperature=1e-45) == {3: 1.0}
    assert shares(50, temperature=1e-30, top_p=0.9) == {3: 1.0}


def test_the_seed_decides_and_nothing_else() -> None:
    flat = np.zeros(1000, np.float32)

    def drawn(seed: int) -> list[int]:
        chooser = make(seed, temperature=1.0)
        return [choose(flat, chooser=chooser) for _ in range(5)]

    assert drawn(7) == drawn(7)
    assert drawn(7) != drawn(8)


@given(
    st.lists(st.floats(-30, 30, width=32), min_size=2, max_size=60),
    st.integers(1, 60),
    st.floats(0.01, 1),
    st.floats(0.1, 5),
)
def test_only_the_likeliest_come_whatever_the_logits(
    logits: list[float], top_k: int, top_p: float, temperature: float
) -> None:
    chooser = make(temperature=temperature, top_k=min(top_k, len(logits)), top_p=top_p)
    scaled = np.array(logits, np.float64) / temperature
    allowed = np.sort(scaled)[::-1][: min(top_k, len(logits))]
    weights = np.exp(allowed - allowed[0])
    least = allowed[min(int(np.searchsorted(weights.cumsum(), top_p * weights.sum() * 1.0001)), len(allowed) - 1)]
    for _ in range(5):
        assert scaled[choose(logits, chooser=chooser)] >= least - 1e-3


def test_log_probabilities_are_those_before_any_change() -> None:
    row = np.array(LOGITS, np.float32)
    expected = row[0] - np.log(np.exp(row).sum())
    assert log_probability(row, 0, 3) == pytest.approx(float(expected), abs=1e-6)
    token, log_prob = make(log_probs=True, token_bias=((0, 50.0),)).choose(row, 3, np.array(PROMPT), 2)
    assert token == 0
    assert log_prob == pytest.approx(float(expected), abs=1e-6)

"""Who has gone is found out soon and cheaply; responses are spaced by the number of streams."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import pytest

from scalellm_trt.runtime.live_answers import LiveAnswers
from tests.fakes.pipelines import settings

if TYPE_CHECKING:
    from scalellm_trt.runtime.answer import Answer


@dataclass
class FakeAnswer:
    """An answer that counts how often it is asked."""

    is_stream: bool = True
    is_done: bool = False
    gone: bool = False
    asked_at: list[float] = field(default_factory=list)
    house: House | None = None

    def has_lost_client(self) -> bool:
        assert self.house is not None
        self.asked_at.append(self.house.clock)
        self.is_done |= self.gone
        return self.gone


class FakeGeneration:
    """A generation that remembers being cancelled."""

    def __init__(self) -> None:
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class House:
    """Live answers with a clock of their own."""

    def __init__(self, **changes: object) -> None:
        self.clock = 0.0
        self.live = LiveAnswers(settings(**changes), now=lambda: self.clock)

    def add(self, answer: FakeAnswer) -> FakeGeneration:
        generation = FakeGeneration()
        answer.house = self
        self.live.add(cast("Answer", answer), generation)
        return generation

    def step_at(self, clock: float) -> None:
        self.clock = clock
        self.live.on_step()


def test_a_request_whose_client_has_gone_is_cancelled() -> None:
    house = House()
    stays, goes = house.add(FakeAnswer()), house.add(FakeAnswer(gone=True))
    house.step_at(1.0)
    assert (stays.is_cancelled, goes.is_cancelled) == (False, True)


def test_nobody_is_asked_oftener_than_the_interval() -> None:
    house = House(cancel_poll_ms=50.0)
    answer = FakeAnswer()
    house.add(answer)
    for step in range(1, 13):
        house.step_at(step * 0.02)
    assert answer.asked_at == pytest.approx([0.06, 0.12, 0.18, 0.24])


def test_done_answers_are_forgotten_unasked() -> None:
    house = House()
    answer = FakeAnswer(is_done=True)
    house.add(answer)
    house.step_at(1.0)
    assert answer.asked_at == []
    assert house.live.spacing_s() == 0


def test_a_long_queue_is_asked_in_turns() -> None:
    house = House(max_batch_size=2)
    answers = [FakeAnswer() for _ in range(5)]
    for answer in answers:
        house.add(answer)
    for step in range(1, 6):
        house.step_at(float(step))
    assert [len(answer.asked_at) for answer in answers] == [2] * 5


def test_of_many_answers_half_are_asked_after_a_step_and_everybody_within_two() -> None:
    house = House(max_batch_size=16)
    answers = [FakeAnswer() for _ in range(12)]
    for answer in answers:
        house.add(answer)
    house.step_at(1.0)
    house.step_at(2.0)
    assert all(answer.asked_at for answer in answers)
    for step in range(3, 9):
        house.step_at(float(step))
    assert [sum(at > 2.0 for at in answer.asked_at) for answer in answers] == [3] * 12


def test_one_answer_is_asked_after_every_second_step() -> None:
    house = House()
    answer = FakeAnswer()
    house.add(answer)
    for step in range(1, 7):
        house.step_at(float(step))
    assert answer.asked_at == [1.0, 3.0, 5.0]


def test_spacing_grows_with_the_number_of_streams() -> None:
    house = House(response_spacing_ms=8.0)
    answers = [FakeAnswer(), FakeAnswer(), FakeAnswer(is_stream=False)]
    for answer in answers:
        house.add(answer)
    assert house.live.spacing_s() == pytest.approx(0.016)
    answers[0].is_done = True
    house.step_at(1.0)
    assert house.live.spacing_s() == pytest.approx(0.008)

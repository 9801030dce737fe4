"""Requests join and leave while others run; none of them can harm another."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from scalellm_trt.runtime.engine_api import InvalidRequestError, UnavailableError
from scalellm_trt.runtime.engine_loop import EngineLoop
from tests.fakes.pipelines import Collector, FakePipeline, request, settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class House:
    """An engine over fake pipelines, with what it logged."""

    def __init__(self, **changes: object) -> None:
        self.settings = settings(**changes)
        self.pipelines: list[FakePipeline] = []
        self.build_fault: Exception | None = None
        self.log: list[str] = []
        self.num_turns = 0
        self.engine = EngineLoop(self.settings, self._build, on_step=self._count, log=self.log.append)

    def _build(self) -> FakePipeline:
        if self.build_fault is not None:
            raise self.build_fault
        self.pipelines.append(FakePipeline(self.settings))
        self.pipelines[-1].may_step.set()
        return self.pipelines[-1]

    def _count(self) -> None:
        self.num_turns += 1

    @property
    def pipeline(self) -> FakePipeline:
        return self.pipelines[-1]

    def hold(self) -> None:
        self.pipeline.may_step.clear()

    def go(self) -> None:
        self.pipeline.may_step.set()

    def submit(self, sink: Collector | None = None, **asked: object) -> Collector:
        sink = sink or Collector()
        self.engine.submit(request(**asked), sink)  # type: ignore[arg-type]
        return sink


@pytest.fixture
def make_house() -> Iterator[Callable[..., House]]:
    houses: list[House] = []

    def make(**changes: object) -> House:
        houses.append(House(**changes))
        return houses[-1]

    yield make
    for house in houses:
        house.go()
        house.engine.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "engine"]


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.001)


def test_a_request_gets_its_tokens_one_step_at_a_time(make_house: Callable[..., House]) -> None:
    sink = make_house().submit(max_tokens=3).wait()
    assert [chunk.token_ids for chunk in sink.chunks] == [(14,), (15,), (16,)]
    assert [chunk.finish_reason for chunk in sink.chunks] == [None, None, "length"]


def test_a_stop_token_ends_a_request(make_house: Callable[..., House]) -> None:
    sink = make_house().submit(max_tokens=9, stop_token_ids=frozenset([15])).wait()
    assert sink.ids() == [14, 15]
    assert sink.chunks[-1].finish_reason == "stop"


def test_requests_run_together_and_a_later_one_joins(make_house: Callable[..., House]) -> None:
    house = make_house()
    house.hold()
    first, second = house.submit(max_tokens=8), house.submit(max_tokens=2, first_id=100)
    house.go()
    first.wait(), second.wait()
    assert house.pipeline.most_sequences == 2
    assert house.pipeline.num_steps == 8


def test_no_more_sequences_run_than_max_batch_size(make_house: Callable[..., House]) -> None:
    house = make_house()
    house.hold()
    sinks = [house.submit() for _ in range(5)]
    house.go()
    assert [sink.wait().ids() for sink in sinks] == [[14, 15, 16]] * 5
    assert house.pipeline.most_sequences == 2


def test_guaranteed_no_evict_waits_until_all_pages_are_free(make_house: Callable[..., House]) -> None:
    house = make_house()
    house.hold()
    # 5 of 8 pages each: together they would run out of pages half way.
    sinks = [house.submit(prompt_len=8, max_tokens=13) for _ in range(2)]
    house.go()
    for sink in sinks:
        assert len(sink.wait().ids()) == 13
    assert house.pipeline.most_sequences == 1


def test_max_utilization_starts_as_soon_as_the_prompt_fits(make_house: Callable[..., House]) -> None:
    house = make_house(batch_scheduler_policy="max_utilization")
    house.hold()
    sinks = [house.submit(prompt_len=8, max_tokens=5) for _ in range(2)]
    house.go()
    assert all(len(sink.wait().ids()) == 5 for sink in sinks)
    assert house.pipeline.most_sequences == 2


def test_requests_start_in_order_even_if_a_later_one_would_fit(make_house: Callable[..., House]) -> None:
    house = make_house()
    house.hold()
    sinks = [house.submit(prompt_len=8, max_tokens=13), house.submit(prompt_len=8, max_tokens=13), house.submit()]
    house.go()
    for sink in sinks:
        sink.wait()
    assert [len(sequence.input_ids) for sequence in house.pipeline.started] == [8, 8, 4]
    assert house.pipeline.started[2].sampling.max_tokens == 3


def test_the_pool_can_be_filled_to_the_last_page(make_house: Callable[..., House]) -> None:
    house = make_house()
    assert len(house.submit(prompt_len=24, max_tokens=9).wait().ids()) == 9
    assert house.pipeline.most_blocks == 8


def test_a_sink_that_has_enough_frees_the_place(make_house: Callable[..., House]) -> None:
    house = make_house()
    sink = house.submit(Collector(stop_after=2), max_tokens=20).wait()
    assert house.submit(prompt_len=24, max_tokens=9).wait().ids()
    assert sink.ids() == [14, 15]


def test_cancelling_ends_a_running_request_without_a_further_chunk(make_house: Callable[..., House]) -> None:
    house = make_house()
    started = threading.Event()

    def note(_: object) -> None:
        house.hold()
        started.set()

    sink = Collector(on_chunk=note)
    generation = house.engine.submit(request(max_tokens=20), sink)
    assert started.wait(5)
    generation.cancel()
    house.go()
    assert house.submit(prompt_len=24, max_tokens=9).wait().num_over == 1
    assert sink.num_over == 0
    assert len(sink.chunks) <= 2


def test_the_pages_of_a_request_that_has_enough_are_free_for_the_next_one(make_house: Callable[..., House]) -> None:
    house = make_house()
    for _ in range(5):
        house.submit(Collector(stop_after=1), prompt_len=24, max_tokens=9).wait()
    assert house.submit(prompt_len=24, max_tokens=9).wait().error is None
    assert not any(sequence.is_lost for sequence in house.pipeline.started)


def test_a_cancelled_waiting_request_never_starts(make_house: Callable[..., House]) -> None:
    house = make_house()
    house.hold()
    running = [house.submit(max_tokens=5) for _ in range(2)]
    generation = house.engine.submit(request(max_tokens=7), Collector())
    last = house.submit()
    generation.cancel()
    house.go()
    for sink in (*running, last):
        sink.wait()
    assert 7 not in [sequence.sampling.max_tokens for sequence in house.pipeline.started]


def test_a_full_queue_refuses_and_says_so(make_house: Callable[..., House]) -> None:
    house = make_house(max_queue_size=1)
    house.hold()
    sinks = [house.submit() for _ in range(3)]
    with pytest.raises(UnavailableError, match=r"max_queue_size: . requests are waiting already"):
        sinks += [house.submit() for _ in range(3)]
    house.go()
    assert all(sink.wait().error is None for sink in sinks)


def test_a_request_beyond_the_limits_never_reaches_the_pipeline(make_house: Callable[..., House]) -> None:
    house = make_house()
    with pytest.raises(InvalidRequestError, match="max_tokens"):
        house.submit(max_tokens=0)
    assert not house.pipeline.started


def test_greedy_sequences_are_computed_once(make_house: Callable[..., House]) -> None:
    house = make_house()
    sink = house.submit(num_sequences=2).wait()
    assert sink.ids(0) == sink.ids(1) == [14, 15, 16]
    assert len(house.pipeline.started) == 1


def test_sampled_sequences_have_seeds_of_their_own(make_house: Callable[..., House]) -> None:
    house = make_house(max_batch_size=3)
    house.submit(num_sequences=3, temperature=1.0, seed=7).wait()
    house.submit(num_sequences=1, temperature=1.0, seed=7).wait()
    seeds = [sequence.seed for sequence in house.pipeline.started]
    assert len(set(seeds[:3])) == 3
    assert seeds[3] == seeds[0]


def test_every_bit_of_a_seed_counts(make_house: Callable[..., House]) -> None:
    house = make_house()
    asked = [0, 2**64 - 1, *(1 << bit for bit in range(64))]
    for seed in asked:
        house.submit(temperature=1.0, seed=seed).wait()
    seeds = [sequence.seed for sequence in house.pipeline.started]
    assert len(set(seeds)) == len(asked)
    assert max(seeds) < 2**32


def test_without_a_seed_each_request_gets_another(make_house: Callable[..., House]) -> None:
    house = make_house()
    for _ in range(2):
        house.submit(temperature=1.0).wait()
    assert len({sequence.seed for sequence in house.pipeline.started}) == 2


def test_a_failing_step_fails_what_runs_and_spares_what_waits(make_house: Callable[..., House]) -> None:
    house = make_house()
    house.hold()
    house.pipeline.fault = RuntimeError("boom")
    running = [house.submit(max_tokens=5), house.submit(max_tokens=5)]
    eventually(lambda: len(house.pipeline.sequences) >= 1)
    waiting = [house.submit(first_id=100) for _ in range(2)]
    house.go()
    for sink in (*running, *waiting):
        sink.wait()
    lost = [sink for sink in (*running, *waiting) if sink.error is not None]
    assert len(house.pipelines) == 2
    assert 1 <= len(lost) <= 2
    assert all("the engine failed in a step and was restarted: boom" in str(sink.error) for sink in lost)
    assert all(sink.ids() == [104, 105, 106] for sink in waiting)
    assert any("boom" in line for line in house.log)


def test_an_engine_that_cannot_be_rebuilt_says_so_and_tries_again_later(make_house: Callable[..., House]) -> None:
    house = make_house()
    house.pipeline.fault = RuntimeError("boom")
    house.build_fault = RuntimeError("no memory")
    assert "boom" in str(house.submit().wait().error)
    assert "could not be restarted: no memory" in str(house.submit().wait().error)
    house.build_fault = None
    assert house.submit().wait().ids() == [14, 15, 16]


def test_a_request_that_the_pipeline_refuses_fails_alone(make_house: Callable[..., House]) -> None:
    house = make_house()
    house.pipeline.refusal = RuntimeError("bad config")
    assert "could not start the request: bad config" in str(house.submit().wait().error)
    house.pipeline.refusal = None
    assert house.submit().wait().error is None
    assert len(house.pipelines) == 1


def test_a_sequence_lost_by_the_pipeline_is_an_error(make_house: Callable[..., House]) -> None:
    house = make_house()
    sink = house.submit(
        Collector(on_chunk=lambda _: setattr(house.pipeline.started[0], "is_lost", True)), max_tokens=9
    ).wait()
    assert "not a number" in str(sink.error)


def test_a_sink_that_raises_harms_nobody_else(make_house: Callable[..., House]) -> None:
    house = make_house()

    def fail(_: object) -> None:
        raise OSError("client is gone")

    house.hold()
    house.submit(Collector(on_chunk=fail), max_tokens=20)
    good = house.submit(max_tokens=20)
    house.go()
    assert len(good.wait().ids()) == 20
    assert len(house.pipelines) == 1
    assert any("client is gone" in line for line in house.log)


def test_closing_fails_live_and_waiting_requests_and_ends_the_thread(make_house: Callable[..., House]) -> None:
    house = make_house()
    house.hold()
    sinks = [house.submit(max_tokens=20) for _ in range(4)]
    closing = threading.Thread(target=house.engine.close)
    closing.start()
    house.go()
    closing.join(5)
    assert all("being unloaded" in str(sink.wait().error) for sink in sinks)
    with pytest.raises(UnavailableError, match="being unloaded"):
        house.submit()


def test_the_hook_runs_after_each_step_and_never_when_idle(make_house: Callable[..., House]) -> None:
    house = make_house()
    house.submit(max_tokens=4).wait()
    eventually(lambda: house.num_turns == 4)
    time.sleep(0.02)
    assert house.num_turns == 4
    assert house.pipeline.num_steps == 4


def test_a_hook_that_raises_harms_nobody(make_house: Callable[..., House], monkeypatch: pytest.MonkeyPatch) -> None:
    house = make_house()

    def fail() -> None:
        raise OSError("no socket")

    monkeypatch.setattr(house.engine, "_on_step", fail)
    assert house.submit(max_tokens=4).wait().error is None
    assert len(house.pipelines) == 1
    eventually(lambda: any("no socket" in line for line in house.log))


def test_threads_that_bring_requests_get_their_turn(make_house: Callable[..., House]) -> None:
    house = make_house(max_queue_size=64)
    house.submit(max_tokens=28)
    began = time.monotonic()
    sinks = [house.submit(max_tokens=1) for _ in range(20)]
    assert time.monotonic() - began < 10
    for sink in sinks:
        sink.wait()


def test_an_error_in_one_sequence_ends_the_whole_request(make_house: Callable[..., House]) -> None:
    house = make_house()
    house.hold()
    sink = Collector(on_chunk=lambda _: setattr(house.pipeline.started[0], "is_lost", True))
    house.submit(sink, max_tokens=12, num_sequences=2, temperature=1.0)
    house.go()
    eventually(lambda: sink.error is not None)
    house.submit(prompt_len=24, max_tokens=9).wait()
    assert sink.chunks[-1].finish_reason == "error"
    assert house.pipeline.started[1].is_cancelled

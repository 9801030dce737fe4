"""A step has what was decided here: nobody starves, no page has two owners, and a full pool is no dead end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from scalellm_trt.runtime.block_pool import BlockPool
from scalellm_trt.runtime.engine_api import SamplingParams
from scalellm_trt.runtime.engine_openvino import step_inputs
from scalellm_trt.runtime.paged_sequence import PagedSequence
from scalellm_trt.runtime.step_plan import plan_step

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scalellm_trt.runtime.step_plan import Slice

LOGITS = np.arange(10, dtype=np.float32)


class Steps:
    """Sequences that are stepped as the engine does, with a model that always says 9."""

    def __init__(
        self, num_blocks: int = 8, max_num_tokens: int = 8, *, is_chunked: bool = True, has_reuse: bool = False
    ) -> None:
        self.pool = BlockPool(num_blocks, 4, has_reuse=has_reuse)
        self.max_num_tokens, self.is_chunked = max_num_tokens, is_chunked
        self.sequences: list[PagedSequence] = []

    def add(self, prompt: Sequence[int] | int, max_tokens: int = 4) -> PagedSequence:
        ids = [1] * prompt if isinstance(prompt, int) else prompt
        sequence = PagedSequence(ids, SamplingParams(max_tokens=max_tokens), 0, self.sequences.remove)
        self.sequences.append(sequence)
        return sequence

    def plan(self) -> list[Slice]:
        return plan_step(self.sequences, self.pool, self.max_num_tokens, is_chunked=self.is_chunked)

    def step(self) -> list[int]:
        """Do a step; return each sequence's tokens in it."""
        slices = self.plan()
        assert slices, "a step without a token would be repeated for ever"
        assert sum(part.num_tokens for part in slices) <= self.max_num_tokens
        shown = [next((part.num_tokens for part in slices if part.sequence is one), 0) for one in self.sequences]
        choosing = [part.sequence for part in slices if part.has_end]
        for part in slices:
            part.sequence.advance(part.num_tokens, self.pool)
        for sequence in choosing:
            sequence.choose(LOGITS, 9)
            if sequence.finish_reason is not None:
                self.sequences.remove(sequence)
                sequence.give_up(self.pool)
        return shown


def test_a_prompt_comes_in_by_chunks_and_then_a_token_at_a_time() -> None:
    steps = Steps()
    steps.add(19)
    assert [steps.step() for _ in range(4)] == [[8], [8], [3], [1]]


def test_those_that_generate_come_first_and_prompts_share_the_rest_in_order() -> None:
    steps = Steps(num_blocks=20)
    steps.add(2)
    steps.step()
    steps.add(5), steps.add(9)
    assert steps.step() == [1, 5, 2]
    assert steps.step() == [1, 1, 6]


def test_a_whole_prompt_comes_in_one_step_and_before_others_where_it_is_not_split() -> None:
    steps = Steps(num_blocks=20, is_chunked=False)
    steps.add(2)
    steps.step()
    steps.add(8), steps.add(6)
    assert steps.step() == [0, 8, 0]
    assert steps.step() == [1, 1, 6]


def test_the_latest_gives_its_pages_up_and_comes_back() -> None:
    steps = Steps(num_blocks=4)
    first, second = steps.add(4, max_tokens=9), steps.add(4, max_tokens=9)
    for _ in range(30):
        if not steps.sequences:
            break
        steps.step()
    for sequence in (first, second):
        ids, _, finish_reason = sequence.read()
        assert (len(ids), finish_reason) == (9, "length")
    assert steps.pool.num_available == 4


def test_pages_are_told_that_a_prompt_found_but_not_its_own() -> None:
    steps = Steps(num_blocks=7, has_reuse=True)
    prompt = [1, 2, 3, 4, 5, 6, 7, 8, 9]
    steps.add(prompt, max_tokens=1)
    steps.step(), steps.step()
    assert not steps.sequences
    again = steps.add(prompt, max_tokens=9)
    steps.step()
    again.give_up(steps.pool)
    steps.step()
    assert (again.num_reused_blocks, steps.add([2, *prompt]).num_reused_blocks) == (2, 0)


def test_a_prompt_that_finds_no_pages_waits_without_any() -> None:
    steps = Steps(num_blocks=3)
    steps.add(8, max_tokens=2)
    steps.step()
    late = steps.add(9)
    assert steps.step() == [1, 0]
    assert late.blocks == []


@settings(max_examples=300)
@example(asked=[(3, 8), (16, 7), (5, 5), (9, 2)], is_chunked=False, has_reuse=True, max_num_tokens=19)
@given(
    st.lists(st.tuples(st.integers(1, 20), st.integers(1, 12)), min_size=1, max_size=12),
    st.booleans(),
    st.booleans(),
    st.integers(1, 24),
)
def test_everybody_is_served_however_small_the_pool_is(
    asked: list[tuple[int, int]], is_chunked: bool, has_reuse: bool, max_num_tokens: int
) -> None:
    steps = Steps(8, max_num_tokens, is_chunked=is_chunked, has_reuse=has_reuse)
    sequences = [steps.add(length, max_tokens) for length, max_tokens in asked]
    for _ in range(5000):
        if not steps.sequences:
            break
        steps.step()
        owned = [block for one in steps.sequences for block in one.blocks]
        assert has_reuse or len(owned) == len(set(owned))
    assert [len(one.read()[0]) for one in sequences] == [max_tokens for _, max_tokens in asked]
    assert steps.pool.num_available == 8


def test_the_arrays_of_a_step_say_where_everything_is() -> None:
    steps = Steps(num_blocks=20)
    steps.add([5, 6], max_tokens=3)
    steps.step()
    steps.add([1, 2, 3, 4, 5], max_tokens=3), steps.add([7] * 9)
    inputs = step_inputs(steps.plan())
    assert inputs.input_ids.tolist() == [9, 1, 2, 3, 4, 5, 7, 7]
    assert inputs.position_ids.tolist() == [2, 0, 1, 2, 3, 4, 0, 1]
    assert inputs.past_lens.tolist() == [2, 0, 0]
    assert inputs.subsequence_begins.tolist() == [0, 1, 6, 8]
    assert inputs.block_indices.tolist() == [0, 1, 2, 3]
    assert inputs.block_indices_begins.tolist() == [0, 1, 3, 4]
    assert int(inputs.max_context_len) == 5
    assert inputs.logits_indices.tolist() == [0, 5]
    assert {inputs.input_ids.dtype, inputs.position_ids.dtype, inputs.logits_indices.dtype} == {np.dtype(np.int64)}


def test_a_step_that_ends_no_sequence_asks_for_one_row() -> None:
    steps = Steps()
    steps.add(19)
    assert step_inputs(steps.plan()).logits_indices.tolist() == [0]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_result_that_is_no_number_ends_that_sequence(value: float) -> None:
    sequence = Steps().add(1)
    sequence.choose(np.array([0, value], np.float32), 1)
    assert sequence.read() == ([], [], "error")

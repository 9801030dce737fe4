"""Pages are counted, reused, and never given to two sequences that are not the same."""

from __future__ import annotations

import numpy as np
import pytest

from scalellm_trt.runtime.block_pool import BlockPool


def ids(*values: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(values, np.int64)


def filled(pool: BlockPool, prompt: np.ndarray[tuple[int], np.dtype[np.int64]]) -> list[int]:
    """Put all full pages of `prompt` into the pool, as a sequence that begins does."""
    blocks, keys = pool.match(prompt)
    for index in range(len(blocks), len(prompt) // pool.tokens_per_block):
        blocks.append(pool.take())
        part = prompt[index * pool.tokens_per_block : (index + 1) * pool.tokens_per_block]
        keys.append(pool.remember(blocks[index], keys[-1] if keys else b"", part))
    return blocks


def test_the_lowest_pages_come_first_and_none_twice() -> None:
    pool = BlockPool(3, 2, has_reuse=False)
    assert [pool.take() for _ in range(3)] == [0, 1, 2]
    assert pool.num_available == 0
    with pytest.raises(IndexError, match="no page"):
        pool.take()


def test_a_released_page_is_given_again() -> None:
    pool = BlockPool(3, 2, has_reuse=False)
    blocks = [pool.take() for _ in range(3)]
    pool.release(blocks[1:])
    assert pool.num_available == 2
    assert {pool.take(), pool.take()} == {1, 2}


def test_without_reuse_nothing_matches() -> None:
    pool = BlockPool(4, 2, has_reuse=False)
    assert pool.match(ids(1, 2, 3, 4, 5)) == ([], [])


def test_a_prompt_takes_over_the_pages_of_one_that_began_the_same() -> None:
    pool = BlockPool(8, 2, has_reuse=True)
    first = filled(pool, ids(1, 2, 3, 4, 5, 6))
    blocks, keys = pool.match(ids(1, 2, 3, 4, 9, 9, 9))
    assert blocks == first[:2]
    assert len(keys) == 2


def test_the_last_token_is_always_computed() -> None:
    pool = BlockPool(8, 2, has_reuse=True)
    first = filled(pool, ids(1, 2, 3, 4))
    assert pool.match(ids(1, 2, 3, 4))[0] == first[:1]
    assert pool.match(ids(1, 2))[0] == []


def test_the_same_tokens_after_others_are_not_the_same_page() -> None:
    pool = BlockPool(8, 2, has_reuse=True)
    filled(pool, ids(1, 2, 3, 4))
    assert pool.match(ids(3, 4, 1, 2, 5))[0] == []


def test_a_page_with_two_users_is_free_after_the_second() -> None:
    pool = BlockPool(2, 2, has_reuse=True)
    first = filled(pool, ids(1, 2, 3, 4))
    second = pool.match(ids(1, 2, 3, 4, 5))[0]
    pool.release(first)
    assert pool.num_available == 0
    pool.release(second)
    assert pool.num_available == 2


def test_pages_that_others_use_too_are_not_freed() -> None:
    pool = BlockPool(8, 2, has_reuse=True)
    first = filled(pool, ids(1, 2, 3, 4, 5, 6))
    second = filled(pool, ids(1, 2, 3, 4, 9, 9))
    assert pool.num_freed_by([second]) == 1
    assert pool.num_freed_by([first, second]) == 4


def test_idle_pages_are_given_up_least_recently_used_first_and_ends_before_beginnings() -> None:
    pool = BlockPool(4, 2, has_reuse=True)
    old = filled(pool, ids(1, 2, 3, 4))
    new = filled(pool, ids(5, 6, 7, 8))
    pool.release(old)
    pool.release(new)
    assert pool.take() == old[1]
    assert pool.match(ids(1, 2, 3, 4, 5))[0] == old[:1]
    pool.release(old[:1])
    assert [pool.take() for _ in range(2)] == [new[1], new[0]]
    assert pool.match(ids(5, 6, 7, 8, 9))[0] == []


def test_a_page_filled_twice_at_the_same_time_is_known_once() -> None:
    pool = BlockPool(4, 2, has_reuse=True)
    blocks = [pool.take(), pool.take()]
    for block in blocks:
        pool.remember(block, b"", ids(1, 2))
    pool.release(blocks)
    assert pool.num_available == 4
    assert pool.match(ids(1, 2, 3))[0] == [0]

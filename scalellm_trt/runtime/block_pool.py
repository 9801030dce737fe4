"""The pages of the KV cache: who has which, which are free, and which still hold a prefix that may come again."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter, OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy as np
    from numpy.typing import NDArray


class BlockPool:
    """Counts the users of each page; used from one thread.

    With `has_reuse` a full page is known by its tokens and all tokens before it. Once nobody uses it, it is kept until
    the pool needs it, least recently used first, and a prompt that begins the same takes it over.
    """

    def __init__(self, num_blocks: int, tokens_per_block: int, *, has_reuse: bool) -> None:
        """All pages are free; the lowest are given out first, so that memory is touched only as far as it is needed."""
        self.tokens_per_block = tokens_per_block
        self.has_reuse = has_reuse
        self._free = list(range(num_blocks - 1, -1, -1))
        self._num_users = [0] * num_blocks
        self._keys: list[bytes | None] = [None] * num_blocks
        self._by_key: dict[bytes, int] = {}
        self._idle: OrderedDict[int, None] = OrderedDict()  # known pages without a user, next to be given up first

    @property
    def num_available(self) -> int:
        """Pages that `take` can give."""
        return len(self._free) + len(self._idle)

    def take(self) -> int:
        """Return a page for one user; what it held is forgotten.

        Raises:
            IndexError: none is available.
        """
        if self._free:
            block = self._free.pop()
        elif self._idle:
            block, _ = self._idle.popitem(last=False)
            self._forget(block)
        else:
            raise IndexError("no page of the KV cache is free")
        self._num_users[block] = 1
        return block

    def release(self, blocks: Sequence[int]) -> None:
        """Take one user from each of `blocks`, a sequence's pages in order; its end goes before its beginning."""
        for block in reversed(blocks):
            self._num_users[block] -= 1
            if self._num_users[block]:
                continue
            if self._keys[block] is None:
                self._free.append(block)
            else:
                self._idle[block] = None

    def num_freed_by(self, owned: Iterable[Sequence[int]]) -> int:
        """Return how many pages would become available if all of `owned` were released; shared ones may not."""
        leaving = Counter(itertools.chain.from_iterable(owned))
        return sum(self._num_users[block] == num_users for block, num_users in leaving.items())

    def match(self, ids: NDArray[np.int64]) -> tuple[list[int], list[bytes]]:
        """Return the pages that hold the beginning of `ids` already, one user added to each, and their keys.

        The last token is never among them: its logits have to be computed.
        """
        blocks: list[int] = []
        keys: list[bytes] = []
        if not self.has_reuse:
            return blocks, keys
        key = b""
        for begin in range(0, len(ids) - self.tokens_per_block, self.tokens_per_block):
            key = _key(key, ids[begin : begin + self.tokens_per_block])
            block = self._by_key.get(key)
            if block is None:
                break
            self._idle.pop(block, None)
            self._num_users[block] += 1
            blocks.append(block)
            keys.append(key)
        return blocks, keys

    def remember(self, block: int, before: bytes, ids: NDArray[np.int64]) -> bytes:
        """Note that `block` is full of `ids`, which follow what `before` stands for; return the key of both."""
        key = _key(before, ids)
        if key not in self._by_key:
            self._by_key[key] = block
            self._keys[block] = key
        return key

    def _forget(self, block: int) -> None:
        key, self._keys[block] = self._keys[block], None
        if key is not None:
            del self._by_key[key]


def _key(before: bytes, ids: NDArray[np.int64]) -> bytes:
    """Return what stands for `ids` after `before`; a collision would give a stranger's text, hence no short hash."""
    return hashlib.sha256(before + ids.tobytes()).digest()

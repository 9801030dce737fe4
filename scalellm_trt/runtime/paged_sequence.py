"""One sequence in the paged KV cache: its tokens, its pages, and what the last step has made of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .sampling import Chooser

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from .block_pool import BlockPool
    from .engine_api import FinishReason, SamplingParams


class PagedSequence:
    """A `PipelineSequence`.

    Attributes:
        num_cached: tokens whose keys and values are in the cache.
        blocks: pages that hold them, in order; the last one may be partly filled.
        finish_reason: set once it has ended; "error" if its logits were no numbers.
        num_reused_blocks: pages of its prompt that were in the cache when it began.
    """

    def __init__(
        self, input_ids: Sequence[int], sampling: SamplingParams, seed: int, leave: Callable[[PagedSequence], None]
    ) -> None:
        """Begin with a prompt; `leave` is called when the sequence is cancelled."""
        self._ids = np.empty(len(input_ids) + sampling.max_tokens, np.int64)
        self._ids[: len(input_ids)] = input_ids
        self._num_prompt = self._num_ids = len(input_ids)
        self._sampling = sampling
        self._chooser = Chooser(sampling, seed)
        self._leave = leave
        self._keys: list[bytes] = []  # of the full pages, where they are kept for reuse
        self._new_ids: list[int] = []
        self._new_log_probs: list[float] = []
        self.finish_reason: FinishReason | None = None
        self.num_cached = 0
        self.num_reused_blocks = 0
        self.blocks: list[int] = []

    @property
    def num_due(self) -> int:
        """Tokens that are not in the cache yet: 1 while it generates, more while its prompt is coming in."""
        return self._num_ids - self.num_cached

    def due_ids(self, count: int) -> NDArray[np.int64]:
        """Return the next `count` tokens to be processed: (count,)."""
        return self._ids[self.num_cached : self.num_cached + count]

    def num_missing_blocks(self, tokens_per_block: int) -> int:
        """Return how many pages are missing for all of its tokens."""
        return -(-self._num_ids // tokens_per_block) - len(self.blocks)

    def match(self, pool: BlockPool) -> None:
        """Take over the pages that hold the beginning of a sequence that has none."""
        self.blocks, self._keys = pool.match(self._ids[: self._num_ids])
        self.num_cached = len(self.blocks) * pool.tokens_per_block
        if self._num_ids == self._num_prompt:  # else it gave its pages up, and takes over its own
            self.num_reused_blocks = len(self.blocks)

    def give_up(self, pool: BlockPool) -> None:
        """Return all pages; what was in them has to be computed again."""
        pool.release(self.blocks)
        self.blocks, self._keys, self.num_cached = [], [], 0

    def advance(self, count: int, pool: BlockPool) -> None:
        """Note that `count` more tokens are in the cache."""
        self.num_cached += count
        size = pool.tokens_per_block
        while pool.has_reuse and (len(self._keys) + 1) * size <= self.num_cached:
            full = len(self._keys)
            before = self._keys[-1] if self._keys else b""
            self._keys.append(pool.remember(self.blocks[full], before, self._ids[full * size : (full + 1) * size]))

    def choose(self, logits: NDArray[np.float32], best: int) -> None:
        """Append the next token, chosen by `logits` (vocab_size,), of which `best` is the highest."""
        if not np.isfinite(logits[best]):
            self.finish_reason = "error"
            return
        ids = self._ids[: self._num_ids]
        token, log_prob = self._chooser.choose(logits, best, ids, self._num_prompt)
        self._ids[self._num_ids] = token
        self._num_ids += 1
        self._new_ids.append(token)
        if log_prob is not None:
            self._new_log_probs.append(log_prob)
        if token in self._sampling.stop_token_ids:
            self.finish_reason = "stop"
        elif self._num_ids == len(self._ids):
            self.finish_reason = "length"

    def read(self) -> tuple[list[int], list[float], FinishReason | None]:
        """See `PipelineSequence.read`."""
        made = self._new_ids, self._new_log_probs, self.finish_reason
        self._new_ids, self._new_log_probs = [], []
        return made

    def cancel(self) -> None:
        """See `PipelineSequence.cancel`."""
        self._leave(self)

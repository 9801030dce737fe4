"""Which tokens of which sequences a step processes, and the pages that they need; pure decisions over the block pool.

Sequences that generate come first, a token each; prompts share what the step has left, in the order of their arrival,
and with chunked context the last of them gets a part. Where prompts are not split, they come first instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .block_pool import BlockPool
    from .paged_sequence import PagedSequence


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """The next `num_tokens` tokens of a sequence, and the pages that hold it up to their end."""

    sequence: PagedSequence
    num_tokens: int
    blocks: list[int]

    @property
    def has_end(self) -> bool:
        """Whether it holds the sequence's last token, whose logits choose the next one."""
        return self.num_tokens == self.sequence.num_due


def plan_step(
    sequences: Sequence[PagedSequence], pool: BlockPool, max_num_tokens: int, *, is_chunked: bool
) -> list[Slice]:
    """Return what the next step is to process, in order of arrival; at least something if there are sequences.

    Args:
        sequences: all that run, in order of arrival. Where pages run out, the latest ones give theirs up and begin
            again later: so the first one always gets on.
        pool: gives the pages.
        max_num_tokens: most tokens of a step.
        is_chunked: whether a prompt may be split over steps; one longer than a step always is.
    """
    for sequence in sequences:
        if not sequence.blocks:
            sequence.match(pool)
    generating = [one for one in sequences if one.num_due == 1]
    prompts = [one for one in sequences if one.num_due > 1]
    mixed = [*generating, *prompts] if is_chunked else [*prompts, *generating]
    # Shares of the step go to waste where prompts find no pages: then those that generate, or the first alone.
    for preferred in (mixed, generating, sequences[:1]):
        shares = _shares(preferred, max_num_tokens, is_chunked=is_chunked)
        slices = _slices(sequences, shares, pool)
        if slices:
            break
    return slices


def _shares(sequences: Iterable[PagedSequence], max_num_tokens: int, *, is_chunked: bool) -> dict[int, int]:
    """Return how many tokens each sequence may have, by its `id`; the first ones are served first."""
    shares: dict[int, int] = {}
    left = max_num_tokens
    for sequence in sequences:
        num_tokens = min(sequence.num_due, left)
        if num_tokens < sequence.num_due and not is_chunked and sequence.num_due <= max_num_tokens:
            break  # a whole prompt waits for the next step, and those after it with it
        if num_tokens:
            shares[id(sequence)] = num_tokens
            left -= num_tokens
    return shares


def _slices(sequences: Sequence[PagedSequence], shares: dict[int, int], pool: BlockPool) -> list[Slice]:
    """Return the slices of those that have a share and get their pages, in order of arrival."""
    slices: list[Slice] = []
    for place, sequence in enumerate(sequences):
        num_tokens = shares.get(id(sequence), 0)
        if num_tokens and _get_blocks(sequence, sequences[place + 1 :], pool):
            num_blocks = -(-(sequence.num_cached + num_tokens) // pool.tokens_per_block)
            blocks = sequence.blocks[:num_blocks]
            slices.append(Slice(sequence=sequence, num_tokens=num_tokens, blocks=blocks))
    return slices


def _get_blocks(sequence: PagedSequence, later: Sequence[PagedSequence], pool: BlockPool) -> bool:
    """Get the pages that `sequence` lacks, from `later` ones if need be; return whether it has them.

    A prompt gets all of its pages before its first part is processed: one that stops half way would only hold pages.
    """
    missing = sequence.num_missing_blocks(pool.tokens_per_block)
    short = missing - pool.num_available
    if short > 0 and short > pool.num_freed_by(one.blocks for one in later):
        return False  # nothing is given up in vain: who loses pages loses them to one that gets on
    for victim in reversed(later):
        if missing <= pool.num_available:
            break
        victim.give_up(pool)
    sequence.blocks += [pool.take() for _ in range(missing)]
    return True

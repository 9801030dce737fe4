"""Conversations of several turns: each turn follows the end of the one before and carries all that was said."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scalellm_trt.bench.question import Conversation, Turn
from scalellm_trt.bench.workload import Shape, random_of
from scalellm_trt.bench.workloads import lengths

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scalellm_trt.bench.tokens import ServedTokenizer
    from scalellm_trt.bench.workloads.lengths import Lengths
    from scalellm_trt.bench.workloads.text_source import TextSource


class Conversations:
    """A first prompt of exactly `isl` tokens, then messages of about `follow` tokens; answers are the server's own."""

    def __init__(
        self,
        tokenizer: ServedTokenizer,
        source: TextSource,
        *,
        turns: Lengths,
        follow: Lengths,
        isl: Lengths,
        osl: Lengths,
        seed: int,
    ) -> None:
        """Take the distributions."""
        self._source, self._turns, self._follow, self._isl, self._osl = source, turns, follow, isl, osl
        self.name = f"conversations:turns={turns.label};follow={follow.label};isl={isl.label};osl={osl.label}"
        self.seed = seed
        self.sources: Mapping[str, str] = {"tokenizer": tokenizer.digest, "texts": source.digest}

    def shape(self, number: int) -> Shape:
        """See `Workload`."""
        drawing = random_of(self.seed, "lengths", number)
        return Shape(isl=lengths.draw(self._isl, drawing), osl=lengths.draw(self._osl, drawing))

    def conversation(self, number: int, salt: int) -> Conversation:
        """See `Workload`."""
        shape = self.shape(number)
        drawing = random_of(self.seed, "text", number, salt)
        later = random_of(self.seed, "turns", number)
        first = self._source.fill(lambda text: [("user", text)], shape.isl, drawing)
        turns = [Turn(messages=first, max_tokens=shape.osl)]
        for _ in range(lengths.draw(self._turns, later) - 1):
            text = self._source.piece(lengths.draw(self._follow, later), drawing)
            turns.append(Turn(messages=(("user", text),), max_tokens=lengths.draw(self._osl, later)))
        return Conversation(turns=tuple(turns))

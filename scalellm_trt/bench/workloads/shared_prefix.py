"""Prompts of which many begin alike: a few long system messages with many questions each; what a KV cache can reuse."""

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


class SharedPrefix:
    """A system message of about `prefix` tokens, one of `num_prefixes`, and a user message of the prompt's rest.

    Every cell has prefixes of its own: what is reused was computed in the same cell.
    """

    def __init__(
        self,
        tokenizer: ServedTokenizer,
        source: TextSource,
        *,
        num_prefixes: int,
        prefix: int,
        isl: Lengths,
        osl: Lengths,
        seed: int,
    ) -> None:
        """Take how long prompts are in front of their own part of `isl` tokens."""
        self._source, self._num_prefixes, self._prefix, self._isl, self._osl = source, num_prefixes, prefix, isl, osl
        self.name = f"shared-prefix:prefixes={num_prefixes};prefix={prefix};isl={isl.label};osl={osl.label}"
        self.seed = seed
        self.sources: Mapping[str, str] = {"tokenizer": tokenizer.digest, "texts": source.digest}

    def shape(self, number: int) -> Shape:
        """See `Workload`."""
        drawing = random_of(self.seed, "lengths", number)
        own, osl = lengths.draw(self._isl, drawing), lengths.draw(self._osl, drawing)
        return Shape(isl=self._prefix + own, osl=osl)

    def conversation(self, number: int, salt: int) -> Conversation:
        """See `Workload`."""
        shape = self.shape(number)
        drawing = random_of(self.seed, "text", number, salt)
        which = drawing.randrange(self._num_prefixes)
        prefix = self._source.piece(self._prefix, random_of(self.seed, "prefix", which, salt))
        messages = self._source.fill(lambda text: [("system", prefix), ("user", text)], shape.isl, drawing)
        return Conversation(turns=(Turn(messages=messages, max_tokens=shape.osl),))

"""Questions of given lengths about pieces of public-domain prose: fixed lengths, or drawn from distributions."""

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


class Synthetic:
    """One user message each, the rendered prompt of which has exactly the drawn number of tokens."""

    def __init__(
        self, tokenizer: ServedTokenizer, source: TextSource, *, isl: Lengths, osl: Lengths, seed: int
    ) -> None:
        """Take the distributions of prompt and answer."""
        self._source, self._isl, self._osl = source, isl, osl
        self.name = f"lengths:isl={isl.label};osl={osl.label}"
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
        messages = self._source.fill(lambda text: [("user", text)], shape.isl, drawing)
        return Conversation(turns=(Turn(messages=messages, max_tokens=shape.osl),))

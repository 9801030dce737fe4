"""The bundled public-domain prose as tokens: pieces of it, cut so that a prompt has exactly the tokens it should."""

from __future__ import annotations

import hashlib
from importlib import resources
from typing import TYPE_CHECKING

from scalellm_trt.errors import Problem, RecipeError

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

    from scalellm_trt.bench.question import Message
    from scalellm_trt.bench.tokens import Tokens

FILES = ("calibration.txt", "evaluation.txt")
MAX_STEPS = 12
MAX_PLACES = 20


class TextSource:
    """Cuts prompts out of the texts.

    Attributes:
        digest: SHA-256 of the texts.
    """

    def __init__(self, tokens: Tokens) -> None:
        """Read and tokenize them."""
        texts = [(resources.files("scalellm_trt") / "data" / name).read_text(encoding="utf-8") for name in FILES]
        self._tokens = tokens
        self._ids = tokens.plain("\n".join(texts))
        self.digest = hashlib.sha256("\0".join(texts).encode()).hexdigest()

    def piece(self, num_tokens: int, random_source: random.Random) -> str:
        """Return about so many tokens from anywhere."""
        return self._cut(random_source.randrange(len(self._ids)), num_tokens)

    def fill(
        self, messages_of: Callable[[str], Sequence[Message]], num_tokens: int, random_source: random.Random
    ) -> tuple[Message, ...]:
        """Return messages whose rendered prompt has exactly `num_tokens` tokens, by the length of the text in them.

        Raises:
            RecipeError: even with the shortest text they have more.
        """
        least = self._count(messages_of("x"))
        if least > num_tokens:
            message = f"a prompt of {num_tokens} tokens is too short: what stands around the text takes {least}"
            raise RecipeError([Problem(key="--isl", message=message, hint=f"Ask for more than {least} tokens.")])
        for _ in range(MAX_PLACES):
            begin = random_source.randrange(len(self._ids))
            length = max(1, num_tokens - least + 1)
            for _ in range(MAX_STEPS):
                messages = tuple(messages_of(self._cut(begin, length)))
                missing = num_tokens - self._count(messages)
                if missing == 0:
                    return messages
                length = max(1, length + missing)
        message = f"no text of the bundled ones gives a prompt of exactly {num_tokens} tokens"
        raise RecipeError([Problem(key="--isl", message=message, hint="Take another length.")])

    def _count(self, messages: Sequence[Message]) -> int:
        return len(self._tokens.encode(self._tokens.render(messages)))

    def _cut(self, begin: int, length: int) -> str:
        """Return tokens from `begin` on; the texts go round, so that no prompt is too long for them."""
        ids = list(self._ids[begin : begin + length])
        while len(ids) < length:
            ids += self._ids[: length - len(ids)]
        # Half a character at an edge would not be the same tokens again.
        return self._tokens.decode(ids).strip("�").strip() or "x"

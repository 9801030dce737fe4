"""The served model's own tokenizer and chat template: prompts counted and cut, answers counted chunk by chunk."""

from __future__ import annotations

import bisect
import hashlib
import itertools
from typing import TYPE_CHECKING, Protocol

from scalellm_trt.errors import ArtefactError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from scalellm_trt.bench.question import Message

TOKENIZER_NAME = "tokenizer.json"


class Tokens(Protocol):
    """What workloads need of a tokenizer."""

    def render(self, messages: Sequence[Message]) -> str:
        """Return the prompt that messages become."""
        ...

    def encode(self, prompt: str) -> tuple[int, ...]:
        """Return the ids of a rendered prompt."""
        ...

    def plain(self, text: str) -> tuple[int, ...]:
        """Return the ids of a piece of text, without anything added."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids."""
        ...


class ServedTokenizer:
    """Reads `tokenizer.json` and, where there is one, the chat template beside it.

    Attributes:
        directory: where it was read.
        digest: SHA-256 of the tokenizer and of the template: both make a prompt's tokens.
    """

    def __init__(self, directory: Path) -> None:
        """Load it.

        Raises:
            ArtefactError: there is no tokenizer, or it cannot be read.
        """
        from tokenizers import Tokenizer

        from scalellm_trt.triton import chat_template

        path = directory / TOKENIZER_NAME
        try:
            content = path.read_bytes()
            self._tokenizer = Tokenizer.from_buffer(content)
        except Exception as error:  # the library raises a bare Exception for a file that it cannot read
            message = f"{path}: no tokenizer can be read here: {error}"
            hint = "Name the directory of the served model's tokenizer.json with --tokenizer."
            raise ArtefactError(message, hint=hint) from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._template = chat_template.load(directory)
        template = "" if self._template is None else self._template.source
        self.directory = directory
        self.digest = hashlib.sha256(content + b"\0" + template.encode()).hexdigest()

    def render(self, messages: Sequence[Message]) -> str:
        """Return the prompt in the model's chat template; the contents one after the other where it has none."""
        if self._template is None:
            return "\n".join(content for _, content in messages)
        return self._template.render([{"role": role, "content": content} for role, content in messages])

    def encode(self, prompt: str) -> tuple[int, ...]:
        """Return the ids of a rendered prompt: a template writes the special tokens itself."""
        return tuple(self._tokenizer.encode(prompt, add_special_tokens=self._template is None).ids)

    def plain(self, text: str) -> tuple[int, ...]:
        """Return the ids of a piece of text, without special tokens."""
        return tuple(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids, without special tokens."""
        return str(self._tokenizer.decode(list(ids)))

    def chunk_counts(self, pieces: Sequence[str]) -> tuple[int, ...]:
        """Return how many tokens of the whole text ended in each of its pieces; the sum is that of the whole text."""
        encoding = self._tokenizer.encode("".join(pieces), add_special_tokens=False)
        return split_by_ends([end for _, end in encoding.offsets], [len(piece) for piece in pieces])


def split_by_ends(token_ends: Sequence[int], piece_lengths: Sequence[int]) -> tuple[int, ...]:
    """Return how many tokens end in each piece: tokens and pieces are cuts of the same text, in characters."""
    edges = list(itertools.accumulate(piece_lengths))
    counts = [0] * len(edges)
    for end in token_ends:
        if edges:
            counts[min(bisect.bisect_left(edges, end), len(edges) - 1)] += 1
    return tuple(counts)

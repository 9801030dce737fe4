"""`tokenizer.json` in; prompts as ids, and the bytes of every token, out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .detokenizer import TokenBytes

if TYPE_CHECKING:
    from pathlib import Path

    from .settings import ServiceSettings


class PromptTokenizer:
    """Turns text into the ids that the model was trained on."""

    def __init__(self, directory: Path, settings: ServiceSettings) -> None:
        """Load `directory/tokenizer.json`; truncation and padding that it may ask for are off.

        Raises:
            UnsupportedTokenizerError: its decoder is none of the Llama family's.
        """
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._add_special_tokens = settings.add_special_tokens
        self._bos_token_id = settings.bos_token_id
        self.token_bytes = TokenBytes.of(self._tokenizer, skip_special_tokens=settings.skip_special_tokens)
        self.longest_token_bytes = max(len(token.encode()) for token in self._tokenizer.get_vocab())

    def encode_word(self, text: str) -> tuple[int, ...]:
        """Return the ids of a word inside a text, without special tokens."""
        return tuple(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def encode(self, text: str) -> tuple[int, ...]:
        """Return the ids of a prompt.

        A chat template may have written the beginning-of-sequence token already: it is not doubled.
        """
        ids = tuple(self._tokenizer.encode(text, add_special_tokens=self._add_special_tokens).ids)
        is_doubled = self._bos_token_id is not None and ids[:2] == (self._bos_token_id,) * 2
        return ids[1:] if is_doubled else ids

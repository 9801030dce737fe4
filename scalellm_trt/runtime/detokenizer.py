"""Token ids in, text out, a few tokens at a time: the text does not depend on how the tokens were cut into pieces.

A token stands for bytes, not for characters: an emoji may take three tokens. So each id is turned into its bytes once,
at start-up, and a stream is a running UTF-8 decoding of those bytes. That costs a table look-up per token, and
pieces joined are by construction the text of the whole.
"""

from __future__ import annotations

import codecs
import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from tokenizers import Tokenizer

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class UnsupportedTokenizerError(Exception):
    """This tokenizer's decoder is none of those that are known here; the message names it."""


class TokenBytes:
    """The bytes of every token of a vocabulary.

    `strips_leading_space` tells that a text's first space is not part of it (SentencePiece puts one in front of
    every text). It holds for a whole text, not for the continuation of one. `whole_texts` has the text of each token
    that is whole characters, None for one that may be a part of some.
    """

    def __init__(self, table: Sequence[bytes], *, strips_leading_space: bool = False) -> None:
        """Take the bytes by id; an id past the end has none, as a padded vocabulary has ids without tokens."""
        self._table = tuple(table)
        self.whole_texts = _WholeTexts(self)
        self.strips_leading_space = strips_leading_space

    @classmethod
    def of(cls, tokenizer: Tokenizer, *, skip_special_tokens: bool) -> TokenBytes:
        """Read the table from a tokenizer, and prove it on a few texts.

        Raises:
            UnsupportedTokenizerError: the decoder is unknown, or the table gives other text than the tokenizer.
        """
        rules = _DecoderRules(json.loads(tokenizer.to_str()).get("decoder"))
        vocabulary = tokenizer.get_vocab(with_added_tokens=True)
        added = {index: token for index, token in tokenizer.get_added_tokens_decoder().items()}
        table = [b""] * (max(vocabulary.values(), default=-1) + 1)
        for token, index in vocabulary.items():
            if index in added and added[index].special:
                table[index] = b"" if skip_special_tokens else token.encode()
            else:
                table[index] = rules.token_bytes(token)
        token_bytes = cls(table, strips_leading_space=rules.strips_leading_space)
        _prove(token_bytes, tokenizer, skip_special_tokens=skip_special_tokens)
        return token_bytes

    def ids_of(self, texts: Iterable[str]) -> frozenset[int]:
        """Return the ids of tokens that are exactly one of `texts`; a text that takes several tokens has none."""
        wanted = {text.encode() for text in texts if text}
        return frozenset(index for index, token in enumerate(self._table) if token in wanted) if wanted else frozenset()

    def join(self, ids: Iterable[int]) -> bytes:
        """Return the bytes of `ids`, one after the other."""
        table, size = self._table, len(self._table)
        return b"".join([table[index] for index in ids if 0 <= index < size])

    def decode(self, ids: Iterable[int]) -> str:
        """Return a whole text."""
        text = self.join(ids).decode("utf-8", "replace")
        return text[1:] if self.strips_leading_space and text.startswith(" ") else text


class _WholeTexts(dict[int, str | None]):
    """By id; made when they are first wanted, as few of a vocabulary ever are."""

    def __init__(self, tokens: TokenBytes) -> None:
        super().__init__()
        self._tokens = tokens

    def __missing__(self, token_id: int) -> str | None:
        try:
            text: str | None = self._tokens.join((token_id,)).decode()
        except UnicodeDecodeError:
            text = None
        self[token_id] = text
        return text


class Detokenizer:
    """The text of one continuation as its tokens come."""

    def __init__(self, token_bytes: TokenBytes) -> None:
        """Begin in the middle of a text: a leading space is kept."""
        self._token_bytes, self._whole_texts = token_bytes, token_bytes.whole_texts
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._is_between = True  # two characters: no byte waits for others

    def feed(self, ids: Sequence[int]) -> str:
        """Return the characters that `ids` complete."""
        if self._is_between and len(ids) == 1 and (text := self._whole_texts[ids[0]]) is not None:
            return text
        text = self._decoder.decode(self._token_bytes.join(ids))
        self._is_between = not self._decoder.getstate()[0]
        return text

    def finish(self) -> str:
        """Return a replacement character for what is left of an incomplete one."""
        return self._decoder.decode(b"", final=True)


class _DecoderRules:
    """The `decoder` section of a tokenizer.json, as a function from a token to its bytes."""

    def __init__(self, decoder: dict[str, Any] | None) -> None:
        self.strips_leading_space = False
        self._replacements: list[tuple[str, str]] = []
        self._is_byte_level = False
        self._has_byte_tokens = False
        self._continuation: str | None = None
        self._cleans_up = False
        for step in _steps(decoder):
            handler = _HANDLERS.get(step["type"])
            if handler is None:
                message = f"tokenizer.json: decoder {step['type']} is not supported; known are {', '.join(_HANDLERS)}"
                raise UnsupportedTokenizerError(message)
            handler(self, step)

    def token_bytes(self, token: str) -> bytes:
        if self._has_byte_tokens and (match := _BYTE_TOKEN.fullmatch(token)):
            return bytes([int(match.group(1), 16)])
        for old, new in self._replacements:
            token = token.replace(old, new)
        if self._continuation is not None:
            token = self._word_piece(token, self._continuation)
        if self._is_byte_level and all(char in _BYTE_OF_CHAR for char in token):
            return bytes([_BYTE_OF_CHAR[char] for char in token])
        return token.encode()

    def _word_piece(self, token: str, continuation: str) -> str:
        token = token[len(continuation) :] if token.startswith(continuation) else f" {token}"
        for old, new in _CLEAN_UPS if self._cleans_up else ():
            token = token.replace(old, new)
        return token

    def take_byte_level(self, _step: dict[str, Any]) -> None:
        self._is_byte_level = True

    def take_byte_fallback(self, _step: dict[str, Any]) -> None:
        self._has_byte_tokens = True

    def take_fuse(self, _step: dict[str, Any]) -> None:
        """Joining the tokens of a text changes no byte."""

    def take_replace(self, step: dict[str, Any]) -> None:
        pattern = step["pattern"]
        if "String" not in pattern:
            message = f"tokenizer.json: decoder Replace with a pattern {pattern} is not supported"
            raise UnsupportedTokenizerError(message)
        self._replacements.append((pattern["String"], step["content"]))

    def take_strip(self, step: dict[str, Any]) -> None:
        if (step["content"], step["start"], step["stop"]) != (" ", 1, 0):
            message = f"tokenizer.json: decoder {step} is not supported; it may strip one leading space"
            raise UnsupportedTokenizerError(message)
        self.strips_leading_space = True

    def take_metaspace(self, step: dict[str, Any]) -> None:
        self._replacements.append((step["replacement"], " "))
        self.strips_leading_space = step.get("prepend_scheme", "always") != "never"

    def take_word_piece(self, step: dict[str, Any]) -> None:
        self._continuation, self._cleans_up = step["prefix"], step["cleanup"]
        self.strips_leading_space = True


# What tokenizers' `cleanup` does to each token, in its order.
_CLEAN_UPS = (
    (" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't"), (" 'm", "'m"),
    (" do not", " don't"), (" 's", "'s"), (" 've", "'ve"), (" 're", "'re"),
)  # fmt: skip

_HANDLERS: dict[str, Callable[[_DecoderRules, dict[str, Any]], None]] = {
    "ByteLevel": _DecoderRules.take_byte_level,
    "ByteFallback": _DecoderRules.take_byte_fallback,
    "Fuse": _DecoderRules.take_fuse,
    "Replace": _DecoderRules.take_replace,
    "Strip": _DecoderRules.take_strip,
    "Metaspace": _DecoderRules.take_metaspace,
    "WordPiece": _DecoderRules.take_word_piece,
}


def _steps(decoder: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Return the decoder as a flat list of steps."""
    if decoder is None:
        raise UnsupportedTokenizerError("tokenizer.json: has no decoder")
    if decoder["type"] == "Sequence":
        return [step for inner in decoder["decoders"] for step in _steps(inner)]
    return [decoder]


def _byte_of_char() -> dict[str, int]:
    """Return how byte-level BPE writes bytes: printable Latin-1 as itself, the others from U+0100 on.

    The rule is that of GPT-2's `bytes_to_unicode`.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + rank): byte for rank, byte in enumerate(others)}


_BYTE_OF_CHAR = _byte_of_char()

_PROOFS = ("Hello, world! 12345", "  two  spaces\n\tand a tab", "café 你好 🙂", "def f(x):\n    return x")


def _prove(token_bytes: TokenBytes, tokenizer: Tokenizer, *, skip_special_tokens: bool) -> None:
    """Compare the table with the tokenizer's own decoding.

    Raises:
        UnsupportedTokenizerError: they differ.
    """
    for text in _PROOFS:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        expected, found = tokenizer.decode(ids, skip_special_tokens=skip_special_tokens), token_bytes.decode(ids)
        if found != expected:
            message = f"tokenizer.json: decodes {ids} as {expected!r}, not as {found!r}: its decoder is not supported"
            raise UnsupportedTokenizerError(message)

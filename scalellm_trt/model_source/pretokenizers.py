"""`tokenizer.ggml.pre` in, the `tokenizers` pieces out that cut text into words before byte-pair merging.

A GGUF file only names its rule. The rules are those of the models' own tokenizer.json; llama.cpp has them as regular
expressions in `llama_vocab::impl::load` and `llm_tokenizer_bpe` (src/llama-vocab.cpp).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tokenizers.pre_tokenizers import PreTokenizer

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_DIGIT = r"\p{N}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PreRule:
    """How one family of byte-level tokenizers prepares text.

    Attributes:
        patterns: regular expressions; each cuts the pieces that the one before it left, keeping what lies between.
        takes_whole_words: a word that is a token is taken as it is, without merging (`ignore_merges`).
        normalizes_nfc: text is brought to Unicode's composed form first.
        adds_bos: whether a text begins with bos where the file does not say.
    """

    patterns: Sequence[str]
    takes_whole_words: bool = False
    normalizes_nfc: bool = False
    adds_bos: bool = False


_DEFAULT = PreRule(patterns=(r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", r"[0-9][0-9][0-9]"))
_GPT2_RULE = PreRule(patterns=(_GPT2,))
_DIGITS_RULE = PreRule(patterns=(_DIGIT, _GPT2))
_LLAMA3_RULE = PreRule(patterns=(_LLAMA3,), takes_whole_words=True, adds_bos=True)

PRE_RULES = {
    "default": _DEFAULT,
    "gpt-2": _GPT2_RULE,
    "smollm": _DIGITS_RULE,
    "starcoder": _DIGITS_RULE,
    "refact": _DIGITS_RULE,
    "llama-bpe": _LLAMA3_RULE,
    "llama3": _LLAMA3_RULE,
    "llama-v3": _LLAMA3_RULE,
    "qwen2": PreRule(patterns=(_QWEN2,), normalizes_nfc=True),
    "deepseek-r1-qwen": PreRule(patterns=(_QWEN2,)),
    "tekken": PreRule(patterns=(_TEKKEN,), takes_whole_words=True, adds_bos=True),
}


def build(rule: PreRule) -> PreTokenizer:
    """Return the rule as `tokenizers` runs it; bytes become the printable letters that the vocabulary is made of."""
    from tokenizers import Regex, pre_tokenizers

    steps: list[PreTokenizer] = [
        pre_tokenizers.Split(Regex(pattern), behavior="isolated", invert=False) for pattern in rule.patterns
    ]
    # The words are already cut; what is left to do is the mapping from bytes to letters.
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
    return pre_tokenizers.Sequence(steps)

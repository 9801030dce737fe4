"""A byte-level BPE tokenizer of the 256 bytes, a few merges and special tokens; ids as in its `tokenizer.json`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

if TYPE_CHECKING:
    from pathlib import Path

MERGES = [("Ġ", "t"), ("h", "e"), ("Ġt", "he"), ("ð", "Ł")]
SPECIAL_TOKENS = ("<|begin|>", "<|end|>")


def byte_level() -> Tokenizer:
    """Return the tokenizer; it also knows the plain added token `<tool call>`."""
    vocab = {char: index for index, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    for left, right in MERGES:
        vocab[left + right] = len(vocab)
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=MERGES))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL_TOKENS])
    tokenizer.add_tokens([AddedToken("<tool call>", special=False)])
    return tokenizer


def write(directory: Path, *, adds_begin: bool = False) -> Tokenizer:
    """Write `tokenizer.json`, optionally one that puts `<|begin|>` in front of every text."""
    tokenizer = byte_level()
    if adds_begin:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<|begin|> $A", special_tokens=[("<|begin|>", tokenizer.token_to_id("<|begin|>"))]
        )
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(directory / "tokenizer.json"))
    return tokenizer

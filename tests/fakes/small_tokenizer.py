"""Small tokenizers of three kinds, made on the spot; the byte-level one has the 256 bytes and a few merges."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

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


def sentencepiece() -> Tokenizer:
    """Return a BPE as Llama 2 writes it: U+2581 for a space, bytes as <0xNN>, one leading space stripped."""
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2} | {f"<0x{byte:02X}>": 3 + byte for byte in range(256)}
    for token in ("▁", "a", "b", "▁a", "▁b", "é", "ab"):
        vocab[token] = len(vocab)
    merges = [("▁", "a"), ("▁", "b"), ("a", "b")]
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in ("<unk>", "<s>", "</s>")])
    return tokenizer


def word_piece(*, cleanup: bool = False) -> Tokenizer:
    """Return a WordPiece as BERT has it: words after a space, their continuations after `##`."""
    letters = [*"abcdefghijklmnopqrstuvwxyz0123456789.,!?'()=:_-", *"é你好世界🙂🙃👩"]
    pieces = ["[UNK]", "[CLS]", "[SEP]", "the", "he", "##llo", "##ing", "'s", "n't"]
    pieces += letters + [f"##{letter}" for letter in letters]
    tokenizer = Tokenizer(models.WordPiece(vocab={piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=cleanup)
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in ("[UNK]", "[CLS]", "[SEP]")])
    return tokenizer


END_TOKENS = {"byte-level": "<|end|>", "sentencepiece": "</s>", "wordpiece": "[SEP]"}
ALL = {"byte-level": byte_level, "sentencepiece": sentencepiece, "wordpiece": word_piece}


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

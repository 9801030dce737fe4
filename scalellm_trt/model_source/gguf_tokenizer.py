"""A GGUF file's vocabulary in, `tokenizer.json` and `tokenizer_config.json` out.

Two kinds exist: byte-level BPE (`gpt2`), whose merges are in the file, and SentencePiece BPE (`llama`), whose merges
follow from the scores. transformers' own conversion is not used: it is wrong once saved and loaded again.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from scalellm_trt.model_source import pretokenizers
from scalellm_trt.model_source.pretokenizers import PRE_RULES

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from scalellm_trt.model_source.gguf_file import GgufFile

_SPACE = "▁"  # what SentencePiece writes for a space


class TokenType(IntEnum):
    """`tokenizer.ggml.token_type`, as in llama.cpp's llama.h."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """The tokens of a file, in the order of their ids.

    Attributes:
        kind: `gpt2` or `llama`.
        tokens, types, scores: one entry for each id; no scores in a `gpt2` vocabulary.
        ids: token → id; the lowest id where a token is there twice.
        special: role (`bos`, `eos`, `unk`, `pad`) → id, those that the file names.
        adds_bos, adds_eos: whether a text gets them.
        adds_space: whether a text gets a space before it (SentencePiece).
    """

    kind: str
    tokens: list[str]
    types: list[TokenType]
    scores: list[float]
    ids: dict[str, int]
    special: dict[str, int]
    adds_bos: bool
    adds_eos: bool
    adds_space: bool


def read(file: GgufFile) -> Vocabulary:
    """Read the vocabulary.

    Raises:
        UnsupportedError: a kind of tokenizer or a rule for words that is not known.
        ArtefactError: the parts of the vocabulary do not fit together.
    """
    kind = file.require("tokenizer.ggml.model", str)
    if kind not in ("gpt2", "llama"):
        file.refuse(f"has a tokenizer of the kind {kind!r}", "Supported: gpt2 (byte-level BPE), llama.")
    tokens = file.strings("tokenizer.ggml.tokens")
    if not tokens:
        file.fail("it has no vocabulary")
    types = [_token_type(number) for number in file.numbers("tokenizer.ggml.token_type")]
    scores = file.numbers("tokenizer.ggml.scores")
    types = types or [TokenType.NORMAL] * len(tokens)
    if len(types) != len(tokens) or (kind == "llama" and len(scores) != len(tokens)):
        file.fail(f"its {len(tokens)} tokens have {len(types)} types and {len(scores)} scores")
    ids: dict[str, int] = {}
    for number, token in enumerate(tokens):
        ids.setdefault(token, number)
    adds_bos = kind == "llama" or pre_rule(file).adds_bos
    return Vocabulary(
        kind=kind,
        tokens=tokens,
        types=types,
        scores=scores,
        ids=ids,
        special=_special(file, len(tokens)),
        adds_bos=file.get("tokenizer.ggml.add_bos_token", bool, adds_bos),
        adds_eos=file.get("tokenizer.ggml.add_eos_token", bool, False),
        adds_space=file.get("tokenizer.ggml.add_space_prefix", bool, kind == "llama"),
    )


def pre_rule(file: GgufFile) -> pretokenizers.PreRule:
    """Return the rule by which the file's byte-level tokenizer cuts words.

    Raises:
        UnsupportedError: the file names one that is not known.
    """
    name = file.get("tokenizer.ggml.pre", str, "default")
    if name not in PRE_RULES:
        file.refuse(f"cuts words by the rule {name!r}", f"Known rules: {', '.join(sorted(PRE_RULES))}.")
    return PRE_RULES[name]


def build(file: GgufFile, vocabulary: Vocabulary) -> Tokenizer:
    """Make the tokenizer: same ids as the original model's for every text.

    Raises:
        ArtefactError: merges of tokens that do not exist.
    """
    tokenizer = _byte_level(file, vocabulary) if vocabulary.kind == "gpt2" else _sentence_piece(vocabulary)
    _add_tokens(tokenizer, vocabulary)
    _add_post_processor(tokenizer, vocabulary)
    return tokenizer


def config(file: GgufFile, vocabulary: Vocabulary) -> dict[str, object]:
    """Return tokenizer_config.json's content. The class named is the one that takes tokenizer.json as it is."""
    content: dict[str, object] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "add_bos_token": vocabulary.adds_bos,
        "add_eos_token": vocabulary.adds_eos,
        "model_max_length": file.require(f"{file.require('general.architecture', str)}.context_length", int),
    }
    for role, number in vocabulary.special.items():
        content[f"{role}_token"] = vocabulary.tokens[number]
    if "tokenizer.chat_template" in file.metadata:
        content["chat_template"] = file.require("tokenizer.chat_template", str)
    return content


def merges_by_score(vocabulary: Vocabulary) -> list[tuple[str, str]]:
    """Return the merges that a SentencePiece vocabulary implies: better pieces first, each from all its halves.

    SentencePiece merges the two neighbours whose union has the best score (`bpe_model.cc`), so a merge's rank is its
    piece's. Of the halves of one piece the lower ids come first; they were learned earlier.
    """
    ids = {token: number for number, token in enumerate(vocabulary.tokens) if _is_mergeable(vocabulary, number)}
    ranked = []
    for token, number in ids.items():
        halves = ((token[:cut], token[cut:]) for cut in range(1, len(token)))
        for left, right in halves:
            if left in ids and right in ids:
                ranked.append((-vocabulary.scores[number], number, ids[left], ids[right], (left, right)))
    return [merge for *_, merge in sorted(ranked)]


def _is_mergeable(vocabulary: Vocabulary, number: int) -> bool:
    return vocabulary.types[number] is TokenType.NORMAL


def _token_type(number: float) -> TokenType:
    return TokenType(int(number)) if number in TokenType.__members__.values() else TokenType.NORMAL


def _special(file: GgufFile, num_tokens: int) -> dict[str, int]:
    keys = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    found = {
        role: file.require(f"tokenizer.ggml.{key}_token_id", int)
        for role, key in keys.items()
        if f"tokenizer.ggml.{key}_token_id" in file.metadata
    }
    for role, number in found.items():
        if not 0 <= number < num_tokens:
            file.fail(f"its {role} token {number} is none of its {num_tokens} tokens")
    return found


def _byte_level(file: GgufFile, vocabulary: Vocabulary) -> Tokenizer:
    from tokenizers import Tokenizer, decoders, models, normalizers

    rule = pre_rule(file)
    merges = [_split_merge(merge) for merge in file.strings("tokenizer.ggml.merges")]
    if not merges:
        file.fail("its byte-level vocabulary has no merges")
    for left, right in merges:
        if left not in vocabulary.ids or right not in vocabulary.ids or left + right not in vocabulary.ids:
            file.fail(f"it merges {left!r} and {right!r}, which are not all tokens")
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary.ids, merges=merges, ignore_merges=rule.takes_whole_words))
    if rule.normalizes_nfc:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pretokenizers.build(rule)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _split_merge(merge: str) -> tuple[str, str]:
    # The left half may itself begin with a space, so the first character never is the separator.
    cut = merge.find(" ", 1)
    return merge[:cut], merge[cut + 1 :]


def _sentence_piece(vocabulary: Vocabulary) -> Tokenizer:
    from tokenizers import Tokenizer, decoders, models, normalizers

    unknown = vocabulary.special.get("unk")
    tokenizer = Tokenizer(
        models.BPE(
            vocab=vocabulary.ids,
            merges=merges_by_score(vocabulary),
            unk_token=None if unknown is None else vocabulary.tokens[unknown],
            fuse_unk=True,
            byte_fallback=TokenType.BYTE in vocabulary.types,
        )
    )
    spaces = normalizers.Replace(" ", _SPACE)
    steps = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if vocabulary.adds_space:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(_SPACE), spaces])
        steps.append(decoders.Strip(content=" ", left=1, right=0))
    else:
        tokenizer.normalizer = spaces
    tokenizer.decoder = decoders.Sequence(steps)
    return tokenizer


def _add_tokens(tokenizer: Tokenizer, vocabulary: Vocabulary) -> None:
    """Mark the tokens that are matched in the text as they stand; control tokens are also left out when decoding."""
    from tokenizers import AddedToken

    for number, kind in enumerate(vocabulary.types):
        token = vocabulary.tokens[number]
        if vocabulary.ids[token] != number:
            continue
        if kind is TokenType.CONTROL or (kind is TokenType.UNKNOWN and number == vocabulary.special.get("unk")):
            tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True)])
        elif kind is TokenType.USER_DEFINED:
            tokenizer.add_tokens([AddedToken(token, normalized=False, special=False)])


def _add_post_processor(tokenizer: Tokenizer, vocabulary: Vocabulary) -> None:
    from tokenizers import processors

    before = [vocabulary.special["bos"]] if vocabulary.adds_bos and "bos" in vocabulary.special else []
    after = [vocabulary.special["eos"]] if vocabulary.adds_eos and "eos" in vocabulary.special else []
    if not before and not after:
        return
    names = {number: vocabulary.tokens[number] for number in (*before, *after)}
    first, last = [names[number] for number in before], [names[number] for number in after]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=[*first, "$A", *last],
        pair=[*first, "$A", *last, *(f"{name}:1" for name in first), "$B:1", *(f"{name}:1" for name in last)],
        special_tokens=[(name, number) for number, name in names.items()],
    )

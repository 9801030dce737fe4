"""Streamed text is the whole text, for each kind of vocabulary, however the tokens were cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import decoders

from scalellm_trt.runtime.detokenizer import Detokenizer, TokenBytes, UnsupportedTokenizerError
from tests.fakes.small_tokenizer import byte_level, sentencepiece, word_piece

WORD_PIECES = (word_piece(), word_piece(cleanup=True))
BYTE_LEVEL, SENTENCEPIECE = byte_level(), sentencepiece()
TABLES = {
    "byte-level": TokenBytes.of(BYTE_LEVEL, skip_special_tokens=True),
    "sentencepiece": TokenBytes.of(SENTENCEPIECE, skip_special_tokens=True),
}
IDS = st.lists(st.integers(0, 280), max_size=40)
CUTS = st.lists(st.integers(0, 40), max_size=10)


def stream(table: TokenBytes, ids: list[int], cuts: list[int]) -> str:
    bounds = [0, *sorted(min(cut, len(ids)) for cut in cuts), len(ids)]
    detokenizer = Detokenizer(table)
    text = "".join(detokenizer.feed(ids[a:b]) for a, b in pairwise(bounds))
    return text + detokenizer.finish()


@pytest.mark.parametrize("name", TABLES)
@given(ids=IDS, cuts=CUTS)
def test_any_cutting_of_any_tokens_gives_the_same_text(name: str, ids: list[int], cuts: list[int]) -> None:
    table = TABLES[name]
    assert stream(table, ids, cuts) == table.join(ids).decode("utf-8", "replace")


@given(ids=IDS)
def test_byte_level_text_is_what_the_tokenizer_decodes(ids: list[int]) -> None:
    known = [index for index in ids if index < BYTE_LEVEL.get_vocab_size()]
    assert TABLES["byte-level"].decode(known) == BYTE_LEVEL.decode(known)


@given(text=st.text(alphabet=st.characters(codec="utf-8", exclude_characters="▁"), max_size=30), cuts=CUTS)
def test_real_text_survives_both_vocabularies(text: str, cuts: list[int]) -> None:
    byte_ids = BYTE_LEVEL.encode(text).ids
    assert stream(TABLES["byte-level"], byte_ids, cuts) == BYTE_LEVEL.decode(byte_ids)
    piece_ids = SENTENCEPIECE.encode(text).ids
    assert TABLES["sentencepiece"].decode(piece_ids) == SENTENCEPIECE.decode(piece_ids)


def test_an_emoji_appears_when_its_last_byte_is_there() -> None:
    detokenizer = Detokenizer(TABLES["byte-level"])
    ids = BYTE_LEVEL.encode("🙂").ids
    assert len(ids) == 3
    assert [detokenizer.feed([index]) for index in ids] == ["", "", "🙂"]


def test_an_unfinished_character_becomes_a_replacement_character() -> None:
    detokenizer = Detokenizer(TABLES["byte-level"])
    assert detokenizer.feed(BYTE_LEVEL.encode("🙂").ids[:2]) == ""
    assert detokenizer.finish() == "�"


def test_a_continuation_keeps_its_leading_space() -> None:
    table = TABLES["sentencepiece"]
    ids = SENTENCEPIECE.encode("a b").ids
    assert table.decode(ids) == "a b"
    assert Detokenizer(table).feed(ids[1:]) == " b"


def test_special_tokens_are_skipped_only_if_asked() -> None:
    end, tool = BYTE_LEVEL.encode("<|end|><tool call>").ids
    assert TABLES["byte-level"].decode([end, tool]) == "<tool call>"
    assert TokenBytes.of(BYTE_LEVEL, skip_special_tokens=False).decode([end]) == "<|end|>"


def test_ids_of_a_padded_vocabulary_have_no_text() -> None:
    assert TABLES["byte-level"].decode([100_000, -1]) == ""


def test_an_unknown_decoder_is_refused_by_name() -> None:
    tokenizer = byte_level()
    tokenizer.decoder = decoders.CTC()
    with pytest.raises(UnsupportedTokenizerError, match="CTC"):
        TokenBytes.of(tokenizer, skip_special_tokens=True)


def test_a_decoder_that_lies_is_found_out() -> None:
    tokenizer = byte_level()
    tokenizer.decoder = decoders.Sequence([decoders.Fuse(), decoders.Replace("ll", "L")])
    with pytest.raises(UnsupportedTokenizerError, match="not supported"):
        TokenBytes.of(tokenizer, skip_special_tokens=True)


@pytest.mark.parametrize("cleanup", [False, True])
@given(ids=st.lists(st.integers(0, 100), max_size=30))
def test_word_pieces_are_joined_as_the_tokenizer_joins_them(cleanup: bool, ids: list[int]) -> None:
    tokenizer = WORD_PIECES[cleanup]
    found = TokenBytes.of(tokenizer, skip_special_tokens=True).decode(ids)
    known = [index for index in ids if index > 2]
    first = tokenizer.id_to_token(known[0]) if known else None
    # A continuation at the very beginning keeps its mark in tokenizers; here a text is a continuation.
    if first is None or not first.startswith(("##", "'s", "n't", ".", ",", "!", "?")):
        assert found == tokenizer.decode(ids)

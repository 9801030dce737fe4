from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from scalellm_trt.errors import ArtefactError, UnsupportedError
from scalellm_trt.model_source import gguf_tokenizer
from scalellm_trt.model_source.gguf_file import GgufFile
from scalellm_trt.model_source.pretokenizers import PRE_RULES
from tests.fakes import gguf_models

if TYPE_CHECKING:
    from pathlib import Path

SCORED_PIECES = (gguf_models.PIECE_TOKENS, gguf_models.PIECE_SCORES)


def made(path: Path, *, tokenizer: str = "gpt2", **metadata: Any) -> Tokenizer:
    """Make the tokenizer of a GGUF file, save it and load it again, as the service will."""
    keys = {f"tokenizer.ggml.{key}": value for key, value in metadata.items()}
    file = GgufFile(gguf_models.write(path / "m.gguf", tensors={}, tokenizer=tokenizer, metadata=keys))
    text = gguf_tokenizer.build(file, gguf_tokenizer.read(file)).to_str()
    return Tokenizer.from_str(text)


def tokens(tokenizer: Tokenizer, text: str) -> list[str]:
    found: list[str] = tokenizer.encode(text).tokens
    return found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12345", ["1", "2", "3", "4", "5"]),  # every digit alone, although the vocabulary has 12
        ("hello", ["hello"]),
        ("hello hel", ["hello", "Ġ", "hel"]),
        (" tt", ["Ġt", "t"]),
        ("a  tb", ["a", "Ġ", "Ġt", "b"]),  # the last space belongs to the word behind it
        ("a   ", ["a", "ĠĠ", "Ġ"]),
        ("é", ["Ã", "©"]),
        ("he</s>[TOOL]lo", ["he", "</s>", "[TOOL]", "lo"]),
        ("", []),
    ],
)
def test_byte_level_text_becomes_the_tokens_of_the_rules(tmp_path: Path, text: str, expected: list[str]) -> None:
    assert tokens(made(tmp_path), text) == expected


@pytest.mark.parametrize(
    ("pre", "text", "expected"),
    [
        ("gpt-2", "a1212", ["a", "12", "12"]),
        ("smollm", "a1212", ["a", "1", "2", "1", "2"]),
        ("llama-bpe", "1212121", ["<s>", "12", "1", "2", "12", "1"]),  # three digits at a time
        ("qwen2", "1212", ["1", "2", "1", "2"]),
        ("tekken", "1212", ["<s>", "1", "2", "1", "2"]),
        ("default", "1212", ["12", "1", "2"]),
        ("gpt-2", ".lo", [".", "lo"]),
        ("llama-bpe", ".lo", ["<s>", ".", "lo"]),
        ("qwen2", "e\u0301", ["Ã", "©"]),  # composed first
        ("gpt-2", "e\u0301", ["e", "Ì", "ģ"]),
    ],
)
def test_each_rule_cuts_words_its_own_way(tmp_path: Path, pre: str, text: str, expected: list[str]) -> None:
    assert tokens(made(tmp_path, pre=pre), text) == expected


def test_a_rule_that_takes_whole_words_needs_no_merges_for_them(tmp_path: Path) -> None:
    merges = [" ".join(merge) for merge in gguf_models.MERGES if merge != ("hel", "lo")]
    assert tokens(made(tmp_path, pre="smollm", merges=merges), "hello") == ["hel", "lo"]
    assert tokens(made(tmp_path, pre="llama-bpe", merges=merges), "hello") == ["<s>", "hello"]


@pytest.fixture(scope="module", params=sorted(set(PRE_RULES) - {"qwen2"}))
def any_tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return made(tmp_path_factory.mktemp("gguf"), pre=request.param, add_bos_token=False)


@settings(max_examples=40, deadline=None)
@given(text=st.text(max_size=60))
def test_decoding_gives_the_encoded_text_back(any_tokenizer: Tokenizer, text: str) -> None:
    assert any_tokenizer.decode(any_tokenizer.encode(text).ids, skip_special_tokens=False) == text


def test_control_tokens_are_left_out_of_decoded_text_and_others_are_not(tmp_path: Path) -> None:
    tokenizer = made(tmp_path)
    assert tokenizer.decode(tokenizer.encode("<s>he[TOOL]</s>").ids) == "he[TOOL]"


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({}, ["lo"]),
        ({"add_bos_token": True}, ["<s>", "lo"]),
        ({"add_bos_token": True, "add_eos_token": True}, ["<s>", "lo", "</s>"]),
        ({"pre": "llama-bpe"}, ["<s>", "lo"]),
        ({"pre": "llama-bpe", "add_bos_token": False}, ["lo"]),
    ],
)
def test_bos_and_eos_are_added_where_the_file_or_its_rule_says_so(
    tmp_path: Path, metadata: dict[str, Any], expected: list[str]
) -> None:
    tokenizer = made(tmp_path, **metadata)
    assert tokens(tokenizer, "lo") == expected
    assert tokenizer.encode("lo", add_special_tokens=False).tokens == ["lo"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hello", ["<s>", "▁hello"]),
        ("hello hello", ["<s>", "▁hello", "▁hello"]),
        ("lo", ["<s>", "▁", "lo"]),
        ("llo", ["<s>", "▁", "ll", "o"]),  # ll has the better score than lo
        ("é", ["<s>", "▁", "<0xC3>", "<0xA9>"]),
        ("\n", ["<s>", "▁", "<0x0A>"]),
        ("", ["<s>"]),
    ],
)
def test_sentencepiece_text_is_merged_by_score(tmp_path: Path, text: str, expected: list[str]) -> None:
    assert tokens(made(tmp_path, tokenizer="llama"), text) == expected


def test_another_score_gives_another_merge(tmp_path: Path) -> None:
    better = [0.5 if token == "lo" else score for token, score in zip(*SCORED_PIECES, strict=True)]
    assert tokens(made(tmp_path, tokenizer="llama", scores=better), "llo") == ["<s>", "▁", "l", "lo"]


def test_sentencepiece_text_comes_back(tmp_path: Path) -> None:
    tokenizer = made(tmp_path, tokenizer="llama")
    for text in ("hello", " hello", "  two  spaces ", "日本語🙂\n\ttab"):
        assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_sentencepiece_without_a_space_before_the_text(tmp_path: Path) -> None:
    tokenizer = made(tmp_path, tokenizer="llama", add_space_prefix=False)
    assert tokens(tokenizer, "he he") == ["<s>", "he", "▁he"]
    assert tokenizer.decode(tokenizer.encode(" he").ids) == " he"


def test_only_normal_pieces_are_merged(tmp_path: Path) -> None:
    types = [*gguf_models.PIECE_TYPES]
    types[gguf_models.PIECE_TOKENS.index("he")] = gguf_tokenizer.TokenType.UNUSED
    file = GgufFile(
        gguf_models.write(
            tmp_path / "m.gguf", tensors={}, tokenizer="llama", metadata={"tokenizer.ggml.token_type": types}
        )
    )
    merges = gguf_tokenizer.merges_by_score(gguf_tokenizer.read(file))
    assert ("h", "e") not in merges
    assert ("l", "l") in merges


def test_the_config_names_the_special_tokens_and_the_template(tmp_path: Path) -> None:
    keys = {"tokenizer.ggml.padding_token_id": 2}
    file = GgufFile(gguf_models.write(tmp_path / "m.gguf", tensors={}, metadata=keys))
    assert gguf_tokenizer.config(file, gguf_tokenizer.read(file)) == {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "add_bos_token": False,
        "add_eos_token": False,
        "model_max_length": 2048,
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": "</s>",
        "chat_template": "{{ messages }}",
    }


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({"model": "bert"}, "kind 'bert'"),
        ({"pre": "gpt-4o"}, "rule 'gpt-4o'.*\n.*Known rules:.*llama-bpe"),
    ],
)
def test_an_unknown_kind_is_unsupported(tmp_path: Path, metadata: dict[str, Any], said: str) -> None:
    with pytest.raises(UnsupportedError, match=said):
        made(tmp_path, **metadata)


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({"tokens": None}, "no vocabulary"),
        ({"token_type": [1, 1]}, "have 2 types"),
        ({"merges": None}, "no merges"),
        ({"merges": ["q z"]}, "merges 'q' and 'z'"),
        ({"merges": ["qz"]}, "merges"),
        ({"bos_token_id": 9999}, "bos token 9999"),
    ],
)
def test_a_vocabulary_that_does_not_fit_together_is_damage(tmp_path: Path, metadata: dict[str, Any], said: str) -> None:
    with pytest.raises(ArtefactError, match=said):
        made(tmp_path, **metadata)


def test_a_token_that_is_there_twice_keeps_its_lower_id(tmp_path: Path) -> None:
    doubled = [*gguf_models.BYTE_TOKENS, "he"]
    tokenizer = made(tmp_path, tokens=doubled, token_type=[*gguf_models.BYTE_TYPES, 1])
    assert tokenizer.token_to_id("he") == gguf_models.BYTE_TOKENS.index("he")

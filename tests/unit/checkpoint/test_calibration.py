"""`calibration`: where samples come from, which are drawn, and what pins them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scalellm_trt.checkpoint.calibration import bundled_text, draw_samples, load_texts, read_tokenizer
from scalellm_trt.errors import ArtefactError, RecipeError


def encode(text: str) -> list[int]:
    return [ord(letter) for letter in text]


def test_the_bundled_texts_are_prose_and_share_no_paragraph() -> None:
    calibration, evaluation = (set(bundled_text(f"{name}.txt").split("\n\n")) for name in ("calibration", "evaluation"))
    assert not calibration & evaluation
    assert load_texts("bundled") == [bundled_text("calibration.txt")]
    # 32 samples of 512 tokens at the 3.5 letters or more that a token has in English
    assert len(bundled_text("calibration.txt")) > 32 * 512 * 3.5


def test_windows_cover_the_text_and_the_seed_decides_their_order(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("abcdefghij")
    source = f"file:{tmp_path / 'a.txt'}"
    samples = draw_samples(source, encode, num_samples=10, max_seq_len=4, seed=1)
    assert sorted("".join(chr(code) for code in ids) for ids in samples.token_ids) == ["abcd", "efgh", "ij"]
    again = draw_samples(source, encode, num_samples=10, max_seq_len=4, seed=1)
    others = {draw_samples(source, encode, num_samples=10, max_seq_len=4, seed=seed).digest for seed in range(9)}
    assert samples.digest == again.digest
    assert len(others) > 1


def test_what_was_used_is_described_not_what_was_asked_for(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("abcdefghij")
    samples = draw_samples(f"dir:{tmp_path}", encode, num_samples=512, max_seq_len=4, seed=7)
    assert samples.describe() == {
        "source": f"dir:{tmp_path}",
        "num_samples": 3,
        "num_tokens": 10,
        "max_seq_len": 4,
        "seed": 7,
        "digest": samples.digest,
    }
    assert len(draw_samples(f"dir:{tmp_path}", encode, num_samples=2, max_seq_len=4, seed=7).token_ids) == 2


def test_the_digest_tells_where_samples_end(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("aaaa")
    digests = {
        draw_samples(f"dir:{tmp_path}", encode, num_samples=9, max_seq_len=length, seed=0).digest
        for length in (1, 2, 4)
    }
    assert len(digests) == 3


def test_a_directory_is_read_with_its_subdirectories_in_a_stable_order(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.jsonl").write_text(json.dumps({"text": "two"}) + "\n\n" + json.dumps({"text": "three"}))
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "ignored.md").write_text("four")
    assert load_texts(f"dir:{tmp_path}") == ["one", "two", "three"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("wikitext", "'wikitext' is not a source of text"),
        ("file:", "is not a source of text"),
        ("file:{}/no.txt", "there is no file {}/no.txt"),
        ("dir:{}/no", "there is no directory {}/no"),
        ("file:{}", "{} is not a file"),
        ("dir:{}/empty.txt", "{}/empty.txt is not a directory"),
        ("dir:{}", "{} holds no text"),
        ("file:{}/empty.txt", "holds no text"),
        ("file:{}/latin.txt", "latin.txt cannot be read: UnicodeDecodeError"),
        ("file:{}/bad.jsonl", "cannot be read: KeyError"),
        ("file:{}/number.jsonl", "cannot be read: TypeError: text is 3"),
        ("file:{}/broken.jsonl", "cannot be read: JSONDecodeError"),
    ],
)
def test_a_source_without_text_is_a_problem_of_the_recipe(tmp_path: Path, source: str, message: str) -> None:
    if source != "dir:{}":
        (tmp_path / "empty.txt").write_text(" \n")
        (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
        (tmp_path / "bad.jsonl").write_text('{"words": "x"}')
        (tmp_path / "number.jsonl").write_text('{"text": 3}')
        (tmp_path / "broken.jsonl").write_text("{")
    with pytest.raises(RecipeError) as caught:
        load_texts(source.format(tmp_path))
    assert "quantization.calibration.source: " in str(caught.value)
    assert message.format(tmp_path) in str(caught.value)


def test_the_tokenizer_is_the_models_own_with_its_special_tokens(tmp_path: Path) -> None:
    tokenizer: dict[str, object] = {
        "version": "1.0",
        "truncation": {"max_length": 1, "strategy": "LongestFirst", "stride": 0, "direction": "Right"},
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [9], "tokens": ["<s>"]}},
        },
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": {"a": 0, "b": 1, "<unk>": 2, "<s>": 9}, "unk_token": "<unk>"},
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert read_tokenizer(tmp_path)("a b c") == [9, 0, 1, 2]


@pytest.mark.parametrize("content", [None, "{", "{}"])
def test_a_tokenizer_that_cannot_be_read_is_named(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ArtefactError, match=r"tokenizer\.json: cannot be read"):
        read_tokenizer(Path(tmp_path))

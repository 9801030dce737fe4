"""Stop words end a text at the same character however it was cut into pieces, and never show."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from scalellm_trt.runtime.stop_words import StopWords

TEXT = st.text(alphabet="abc\n é", max_size=40)
WORDS = st.lists(st.text(alphabet="abc\n é", max_size=5), max_size=4)


def pieces(text: str, cuts: list[int]) -> list[str]:
    bounds = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    return [text[start:stop] for start, stop in pairwise(bounds)]


def shown(words: list[str], parts: list[str]) -> tuple[str, bool]:
    stop = StopWords(words)
    text = "".join(stop.feed(part) for part in parts)
    return text + stop.finish(), stop.has_stopped


def naive(words: list[str], text: str) -> tuple[str, bool]:
    """Grow the text a character at a time and cut at the first end of a word."""
    for end in range(1, len(text) + 1):
        starts = [end - len(word) for word in words if word and text[:end].endswith(word)]
        if starts:
            return text[: min(starts)], True
    return text, False


@given(TEXT, WORDS, st.lists(st.integers(0, 40), max_size=10))
def test_any_cutting_shows_the_text_before_the_first_stop_word(text: str, words: list[str], cuts: list[int]) -> None:
    assert shown(words, pieces(text, cuts)) == naive(words, text)


@given(TEXT, WORDS, st.lists(st.integers(0, 40), max_size=10))
def test_what_was_shown_is_never_taken_back(text: str, words: list[str], cuts: list[int]) -> None:
    stop, so_far = StopWords(words), ""
    final, _ = naive(words, text)
    for part in pieces(text, cuts):
        so_far += stop.feed(part)
        assert final.startswith(so_far)


def test_a_stop_word_across_three_pieces_is_held_back() -> None:
    stop = StopWords(["<end>"])
    assert stop.feed("ok <") == "ok "
    assert stop.feed("en") == ""
    assert stop.feed("d> more") == ""
    assert stop.has_stopped
    assert stop.finish() == ""


def test_a_false_alarm_is_let_through() -> None:
    stop = StopWords(["<end>"])
    assert stop.feed("a <en") == "a "
    assert stop.feed("emy") == "<enemy"
    assert not stop.has_stopped


def test_nothing_is_shown_after_the_stop() -> None:
    stop = StopWords(["x"])
    assert stop.feed("ax") == "a"
    assert stop.feed("more") == ""


def test_the_word_complete_first_wins_over_the_one_that_begins_first() -> None:
    assert shown(["bcd", "c"], ["abcd"]) == ("ab", True)


def test_empty_stop_words_are_ignored() -> None:
    assert shown(["", ""], ["text"]) == ("text", False)

"""Random answers as token ids, and random stop texts, many of which the answer holds over the edges of its tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import strategies as st

from scalellm_trt.runtime.detokenizer import TokenBytes
from tests.fakes import small_tokenizer

if TYPE_CHECKING:
    from collections.abc import Sequence

TOKENIZERS = {name: make() for name, make in small_tokenizer.ALL.items()}
TABLES = {name: TokenBytes.of(tokenizer, skip_special_tokens=True) for name, tokenizer in TOKENIZERS.items()}
WORDS = (
    "the",
    "hello",
    "café",
    "你好世界",
    "🙂🙃",
    "👩‍👩‍👧",
    "don't",
    "a.b,c",
    "\n",
    "x=1",
    "é",
    "你",
    "🙂",
    "testing",
    "  ",
)


def whole_text(kind: str, ids: Sequence[int], stop: Sequence[str]) -> str:
    """Return what is to be shown of an answer: its text up to the stop text that is complete first."""
    text = TABLES[kind].join(ids).decode("utf-8", "replace")
    found = [(start + len(word), start) for word in stop if (start := text.find(word)) >= 0]
    return text[: min(found)[1]] if found else text


@st.composite
def requests(draw: st.DrawFn, kind: str) -> tuple[list[int], list[str]]:
    """Draw token ids, mostly of a text and sometimes of none, and up to four stop texts."""
    words = draw(st.lists(st.sampled_from(WORDS) | st.text(max_size=4), min_size=1, max_size=12))
    tokenizer = TOKENIZERS[kind]
    ids = tokenizer.encode(" ".join(words), add_special_tokens=False).ids
    for token in draw(st.lists(st.integers(3, tokenizer.get_vocab_size() - 1), max_size=3)):
        # A lone byte in the middle of a character, or a continuation without a word.
        ids.insert(draw(st.integers(0, len(ids))), token)
    end = tokenizer.token_to_id(small_tokenizer.END_TOKENS[kind])
    ids = [token for token in ids if token != end] or [5]
    text = TABLES[kind].join(ids).decode("utf-8", "replace")
    stop = draw(st.lists(st.sampled_from(WORDS), max_size=2))
    for _ in range(draw(st.integers(0, 2)) if text else 0):
        start = draw(st.integers(0, len(text) - 1))
        stop.append(text[start : start + draw(st.integers(1, 6))])
    return ids, stop

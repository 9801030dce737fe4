from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from scalellm_trt.gateway.answer_text import AnswerText, Delta
from scalellm_trt.gateway.contract import TokenChunk
from scalellm_trt.runtime.detokenizer import TokenBytes
from tests.fakes import small_tokenizer

TOKENIZER = small_tokenizer.byte_level()
TOKEN_BYTES = TokenBytes.of(TOKENIZER, skip_special_tokens=True)
END_ID = TOKENIZER.token_to_id("<|end|>")


def _read(ids: list[int], cuts: list[int], stop: list[str], *, reason: str, min_tokens: int = 0) -> list[Delta]:
    answer = AnswerText(TOKEN_BYTES, stop, frozenset([END_ID]), min_tokens)
    edges = sorted({0, *(cut % (len(ids) + 1) for cut in cuts), len(ids)})
    pieces = [ids[start:end] for start, end in itertools.pairwise(edges)] or [[]]
    deltas = []
    for number, piece in enumerate(pieces):
        is_last = number == len(pieces) - 1
        chunk = TokenChunk(
            index=0, token_ids=tuple(piece), log_probs=(-1.0,) * len(piece), finish_reason=reason if is_last else None
        )
        deltas.append(answer.take(chunk))
        if deltas[-1].finish_reason is not None:
            break
    return deltas


@given(
    text=st.text(alphabet="ab the🙂好é\n", max_size=30),
    cuts=st.lists(st.integers(min_value=0), max_size=8),
    stop=st.lists(st.text(alphabet="ab the🙂好", min_size=1, max_size=4), max_size=4),
    ends_well=st.booleans(),
)
def test_the_text_does_not_depend_on_how_the_tokens_come(
    text: str, cuts: list[int], stop: list[str], ends_well: bool
) -> None:
    ids = TOKENIZER.encode(text).ids + [END_ID] * ends_well
    reason = "stop" if ends_well else "length"
    whole, streamed = _read(ids, [], stop, reason=reason), _read(ids, cuts, stop, reason=reason)
    shown = "".join(delta.text for delta in streamed)
    assert shown == whole[0].text
    assert text.startswith(shown)
    assert not any(word in shown for word in stop)
    tokens = [token for delta in streamed for token in delta.tokens]
    assert tokens == list(whole[0].tokens)
    assert streamed[-1].finish_reason == whole[0].finish_reason


def test_a_token_is_told_when_its_first_character_is_shown() -> None:
    deltas = _read(TOKENIZER.encode("a🙂b").ids, [1, 2, 3, 4], [], reason="length")
    assert "".join(delta.text for delta in deltas) == "a🙂b"
    told = [(delta.text, len(delta.tokens)) for delta in deltas]
    assert told[0] == ("a", 1)
    assert told[1] == ("", 0)


def test_an_end_token_is_hidden_where_it_ended_the_answer_only() -> None:
    plain = TokenBytes.of(TOKENIZER, skip_special_tokens=False)
    for reason, expected in (("stop", "a"), ("length", "a<|end|>")):
        answer = AnswerText(plain, [], frozenset([END_ID]), 0)
        ids = (*TOKENIZER.encode("a").ids, END_ID)
        assert answer.take(TokenChunk(index=0, token_ids=ids, finish_reason=reason)).text == expected


def test_a_stop_text_counts_after_min_tokens() -> None:
    ids = TOKENIZER.encode("abab").ids
    assert _read(ids, [], ["b"], reason="length", min_tokens=3)[0].text == "aba"

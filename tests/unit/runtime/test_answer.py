"""What a client sees: one response or deltas, stop words held back, tokens coalesced, errors as the last word."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from scalellm_trt.runtime.answer import Answer, Part
from scalellm_trt.runtime.detokenizer import TokenBytes
from scalellm_trt.runtime.engine_api import Chunk, GenerateRequest, SamplingParams
from scalellm_trt.runtime.request import AnswerOptions, TextRequest
from tests.fakes.small_tokenizer import byte_level

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scalellm_trt.runtime.engine_api import FinishReason

TOKENIZER = byte_level()
TABLE = TokenBytes.of(TOKENIZER, skip_special_tokens=True)
END = TOKENIZER.encode("<|end|>").ids[0]


class FakeClient:
    """Records what it is sent, and refuses anything after the last."""

    def __init__(self) -> None:
        self.responses: list[list[Part]] = []
        self.error: str | None = None
        self.is_over = False
        self.gone = False

    def send(self, parts: Sequence[Part], *, is_last: bool) -> None:
        assert not self.is_over
        self.responses.append(list(parts))
        self.is_over = is_last

    def fail(self, message: str) -> None:
        assert not self.is_over
        self.error, self.is_over = message, True

    def close(self) -> None:
        assert not self.is_over
        self.is_over = True

    def is_gone(self) -> bool:
        return self.gone

    @property
    def texts(self) -> list[str]:
        return [part.text for parts in self.responses for part in parts]


class Talk:
    """An answer with a clock of its own; `say` plays the engine."""

    def __init__(self, *, num_sequences: int = 1, spacing_s: float = 0.0, **options: object) -> None:
        sampling = SamplingParams(max_tokens=100, num_sequences=num_sequences, stop_token_ids=frozenset([END]))
        request = TextRequest(
            generate=GenerateRequest(input_ids=(1,), sampling=sampling),
            options=AnswerOptions(**options),  # type: ignore[arg-type]
        )
        self.client = FakeClient()
        self.clock = 0.0
        self.answer = Answer(request, self.client, TABLE, lambda: spacing_s, now=lambda: self.clock)

    def say(self, text: str, reason: FinishReason | None = None, index: int = 0) -> bool:
        return self.give(TOKENIZER.encode(text).ids, reason, index)

    def give(self, ids: Sequence[int], reason: FinishReason | None = None, index: int = 0) -> bool:
        log_probs = tuple(-float(token) for token in ids)
        return self.answer.take(
            Chunk(sequence_index=index, token_ids=tuple(ids), log_probs=log_probs, finish_reason=reason)
        )


def test_without_stream_there_is_exactly_one_response() -> None:
    talk = Talk()
    talk.say("one "), talk.say("two")
    assert talk.client.responses == []
    talk.say("!", "length")
    assert talk.client.texts == ["one two!"]
    assert talk.client.is_over
    assert talk.answer.is_done


def test_a_stream_sends_deltas_and_the_reason_with_the_last() -> None:
    talk = Talk(stream=True)
    talk.say("a"), talk.say("b"), talk.say("c", "length")
    assert talk.client.texts == ["a", "b", "c"]
    assert [parts[0].finish_reason for parts in talk.client.responses] == [None, None, "length"]


@given(text=st.text(max_size=20), cuts=st.lists(st.integers(0, 60), max_size=8))
def test_streamed_text_is_unstreamed_text(text: str, cuts: list[int]) -> None:
    ids = TOKENIZER.encode(text).ids
    bounds = [0, *sorted(min(cut, len(ids)) for cut in cuts), len(ids)]
    streamed, whole = Talk(stream=True), Talk()
    for talk in (streamed, whole):
        for start, stop in itertools.pairwise(bounds):
            talk.give(ids[start:stop])
        talk.give([], "length")
    assert "".join(streamed.client.texts) == "".join(whole.client.texts) == TOKENIZER.decode(ids)


def test_the_stop_token_is_an_id_but_no_text() -> None:
    talk = Talk(output_ids=True)
    talk.say("a"), talk.give([END], "stop")
    [part] = talk.client.responses[0]
    assert part.text == "a"
    assert part.token_ids[-1] == END
    assert part.finish_reason == "stop"


def test_a_stop_word_ends_the_answer_and_frees_the_place() -> None:
    talk = Talk(stream=True, stop_words=("the end",))
    assert talk.say("It is ")
    assert talk.say("th")
    assert talk.say("e e")
    assert not talk.say("nd of")
    assert "".join(talk.client.texts) == "It is "
    assert talk.client.responses[-1][0].finish_reason == "stop"
    assert talk.client.is_over


def test_a_held_back_beginning_of_a_stop_word_is_shown_at_the_end() -> None:
    talk = Talk(stream=True, stop_words=("###",))
    talk.say("a##"), talk.say("", "length")
    assert "".join(talk.client.texts) == "a##"


def test_tokens_after_the_stop_word_are_not_delivered() -> None:
    talk = Talk(stop_words=("b",), output_ids=True, log_probs=True)
    ids = TOKENIZER.encode("abc").ids
    talk.give(ids)
    [part] = talk.client.responses[0]
    assert part.token_ids == tuple(ids[:2])
    assert part.log_probs == tuple(-float(token) for token in ids[:2])


def test_min_tokens_holds_against_stop_words() -> None:
    talk = Talk(stop_words=("x",), min_tokens=3)
    ids = TOKENIZER.encode("xxaxb").ids
    assert len(ids) == 5
    talk.give(ids[:2]), talk.give(ids[2:])
    assert talk.client.texts == ["xxa"]


def test_a_stop_word_beats_the_length_reason_of_the_same_chunk() -> None:
    talk = Talk(stop_words=("b",))
    talk.say("ab", "length")
    assert talk.client.responses[0][0].finish_reason == "stop"


def test_an_unfinished_character_becomes_a_replacement_character_at_the_end() -> None:
    talk = Talk(stream=True)
    talk.give(TOKENIZER.encode("🙂").ids[:-1]), talk.give([], "length")
    assert "".join(talk.client.texts) == "�"


def test_a_stream_without_news_is_silent() -> None:
    talk = Talk(stream=True)
    talk.give(TOKENIZER.encode("🙂").ids[:1])
    assert talk.client.responses == []


def test_ids_are_sent_even_while_their_text_is_held_back() -> None:
    talk = Talk(stream=True, output_ids=True)
    ids = TOKENIZER.encode("🙂").ids
    talk.give(ids[:1])
    assert talk.client.responses[0][0].token_ids == tuple(ids[:1])


def test_tokens_travel_together_until_the_spacing_has_passed() -> None:
    talk = Talk(stream=True, spacing_s=1.0)
    for clock, text in ((0.0, "a"), (0.4, "b"), (0.8, "c"), (1.2, "d"), (1.3, "e")):
        talk.clock = clock
        talk.say(text)
    talk.say("f", "length")
    assert talk.client.texts == ["a", "bcd", "ef"]


def test_log_probs_add_up_over_responses() -> None:
    talk = Talk(stream=True, log_probs=True)
    talk.give([3]), talk.give([4], "length")
    first, last = (parts[0] for parts in talk.client.responses)
    assert (first.log_probs, first.cum_log_prob) == ((-3.0,), -3.0)
    assert (last.log_probs, last.cum_log_prob) == ((-4.0,), -7.0)


def test_several_sequences_end_in_one_response() -> None:
    talk = Talk(num_sequences=2)
    talk.say("a"), talk.say("b", index=1), talk.say("c", "length", index=1)
    assert not talk.client.responses
    talk.say("d", "stop")
    assert talk.client.texts == ["ad", "bc"]
    assert [part.sequence_index for part in talk.client.responses[0]] == [0, 1]


def test_streamed_sequences_are_told_apart_and_only_the_last_one_is_final() -> None:
    talk = Talk(num_sequences=2, stream=True)
    talk.say("a"), talk.say("b", index=1), talk.say("c", "length")
    assert not talk.client.is_over
    talk.say("d", "length", index=1)
    assert [(parts[0].sequence_index, parts[0].text) for parts in talk.client.responses] == [
        (0, "a"),
        (1, "b"),
        (0, "c"),
        (1, "d"),
    ]
    assert talk.client.is_over


def test_an_engine_error_is_the_last_word() -> None:
    talk = Talk(stream=True, num_sequences=2)
    talk.say("a")
    error = Chunk(sequence_index=0, token_ids=(), finish_reason="error", error="broken")
    assert not talk.answer.take(error)
    assert not talk.say("b", index=1)
    assert talk.client.error == "broken"
    assert talk.client.texts == ["a"]


def test_a_client_that_has_gone_ends_the_answer() -> None:
    talk = Talk(stream=True)
    assert not talk.answer.has_lost_client()
    talk.client.gone = True
    assert talk.answer.has_lost_client()
    assert talk.client.is_over
    assert not talk.say("late")
    assert not talk.answer.has_lost_client()

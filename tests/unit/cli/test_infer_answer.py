from __future__ import annotations

import json
from typing import TYPE_CHECKING

from scalellm_trt.cli.infer import Answer, as_chat
from scalellm_trt.triton.client import TextChunk

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def _answer(*timed: tuple[float, TextChunk]) -> Answer:
    """Return an answer whose chunks came at these seconds after the request."""
    clock = [100.0]

    def chunks() -> Iterator[TextChunk]:
        for seconds, chunk in timed:
            clock[0] = 100.0 + seconds
            yield chunk

    answer = Answer(now=lambda: clock[0])
    assert list(answer.watch(chunks())) == [chunk for _, chunk in timed]
    return answer


def test_tokens_of_all_chunks_count_and_the_first_text_is_the_first_token() -> None:
    answer = _answer(
        (0.1, TextChunk(text="", num_input_tokens=7, num_output_tokens=1)),
        (0.2, TextChunk(text="Hel", num_output_tokens=1)),
        (0.7, TextChunk(text="lo", num_output_tokens=9, finish_reason="stop")),
    )
    assert (answer.text, answer.num_input_tokens, answer.num_output_tokens) == ("Hello", 7, 11)
    assert (round(answer.ttft_s or 0, 6), round(answer.e2e_latency_s, 6)) == (0.2, 0.7)
    assert answer.summary == "[11 tokens, the first after 200 ms, then 20 tokens/s]"


def test_one_token_has_no_speed() -> None:
    assert _answer((0.2, TextChunk(text="x", num_output_tokens=1))).summary == "[1 token, the first after 200 ms]"


def test_a_model_that_counts_nothing_has_no_summary() -> None:
    answer = _answer((0.2, TextChunk(text="x")))
    assert (answer.num_input_tokens, answer.num_output_tokens, answer.summary) == (None, None, "")


def test_the_chat_template_is_found_beside_the_sources_of_the_model(tmp_path: Path) -> None:
    (tmp_path / "1" / "engine").mkdir(parents=True)
    (tmp_path / "1" / "admission.py").write_text("")
    template = {"chat_template": "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"}
    (tmp_path / "1" / "engine" / "tokenizer_config.json").write_text(json.dumps(template))
    assert as_chat(tmp_path, "Hi", None) == "<user>Hi"
    assert as_chat(tmp_path, "Hi", "Be brief.") == "<system>Be brief.<user>Hi"

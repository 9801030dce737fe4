"""A request is refused before the engine sees it, with the field and the limit."""

from __future__ import annotations

import re

import pytest

from scalellm_trt.runtime import admission
from scalellm_trt.runtime.engine_api import GenerateRequest, InvalidRequestError, SamplingParams
from tests.fakes.pipelines import request, settings


@pytest.mark.parametrize(("tokens", "blocks"), [(0, 0), (1, 1), (32, 1), (33, 2), (64, 2)])
def test_pages_are_counted_up(tokens: int, blocks: int) -> None:
    assert admission.num_blocks(tokens, 32) == blocks


@pytest.mark.parametrize(
    ("changes", "asked", "message"),
    [
        ({}, request(prompt_len=0), "input_ids: the prompt is empty"),
        ({}, request(prompt_len=25), "input_ids: 25 tokens are more than max_input_len (24)"),
        ({"chunked_context": False}, request(prompt_len=17), "input_ids: 17 tokens are more than max_num_tokens (16)"),
        ({}, request(max_tokens=0), "max_tokens: must be at least 1, found 0"),
        ({}, request(prompt_len=20, max_tokens=21), "make 41, more than max_seq_len (40); at most 20 are possible"),
        ({}, request(prompt_len=16, max_tokens=18), "more than kv_cache_tokens (32); at most 17 are possible"),
        ({}, request(max_tokens=3, min_tokens=4), "min_tokens: must lie between 0 and max_tokens (3), found 4"),
        ({}, request(num_sequences=3), "num_return_sequences: must lie between 1 and max_batch_size (2), found 3"),
        ({"vocab_size": 12}, request(), "input_ids: token id 13 is outside the vocabulary (0 to 11)"),
        ({}, request(first_id=-1), "input_ids: token id -1 is outside the vocabulary"),
    ],
)
def test_a_request_beyond_a_limit_is_refused(changes: dict[str, object], asked: GenerateRequest, message: str) -> None:
    with pytest.raises(InvalidRequestError, match=re.escape(message)):
        admission.check(asked, settings(**changes))


@pytest.mark.parametrize(
    "asked", [request(), request(prompt_len=24, max_tokens=9), request(prompt_len=16, max_tokens=17)]
)
def test_a_request_at_the_limits_is_taken(asked: GenerateRequest) -> None:
    admission.check(asked, settings())


def test_messages_call_the_prompt_what_the_client_called_it() -> None:
    asked = GenerateRequest(input_ids=(), sampling=SamplingParams(max_tokens=1), prompt_field="text_input")
    with pytest.raises(InvalidRequestError, match=r"^text_input: the prompt is empty"):
        admission.check(asked, settings())

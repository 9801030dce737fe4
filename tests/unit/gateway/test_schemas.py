"""Every field of OpenAI's API is known: it is taken, or refused by its name with the reason."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.types import completion_create_params
from openai.types.chat import (
    ChatCompletionAssistantMessageParam,
    ChatCompletionMessage,
    ChatCompletionStreamOptionsParam,
)
from openai.types.chat import (
    completion_create_params as chat_create_params,
)

from scalellm_trt.gateway import refused, schemas
from scalellm_trt.gateway.errors import ApiError
from scalellm_trt.gateway.refused import IN_MESSAGES, IN_REQUESTS, IN_STREAM_OPTIONS
from scalellm_trt.gateway.schemas import ChatMessage, ChatRequest, CompletionRequest, StreamOptions

CHAT = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
COMPLETION = {"model": "m", "prompt": "x"}


def _chat(**fields: Any) -> ChatRequest:
    return schemas.parse(json.dumps({**CHAT, **fields}).encode(), ChatRequest)


def _completion(**fields: Any) -> CompletionRequest:
    return schemas.parse(json.dumps({**COMPLETION, **fields}).encode(), CompletionRequest)


def _param(call: Any, **fields: Any) -> str | None:
    with pytest.raises(ApiError) as caught:
        call(**fields)
    assert caught.value.status == 400
    return caught.value.param


@pytest.mark.parametrize(
    ("official", "known"),
    [
        (chat_create_params.CompletionCreateParamsBase, {*ChatRequest.model_fields, *IN_REQUESTS}),
        (completion_create_params.CompletionCreateParamsBase, {*CompletionRequest.model_fields, *IN_REQUESTS}),
        (ChatCompletionStreamOptionsParam, {*StreamOptions.model_fields, *IN_STREAM_OPTIONS}),
        (ChatCompletionAssistantMessageParam, {*ChatMessage.model_fields, *IN_MESSAGES}),
    ],
)
def test_no_field_of_the_official_client_is_unheard_of(official: Any, known: set[str]) -> None:
    assert set(official.__annotations__) <= known


@pytest.mark.parametrize("name", [name for name in IN_REQUESTS if name not in ("best_of", "echo")])
def test_a_field_that_cannot_be_honoured_is_refused_unless_it_asks_for_nothing(name: str) -> None:
    assert _param(_chat, **{name: "xyz"}) == name
    assert _param(_completion, **{name: ["xyz"]}) == name
    for value in (None, *IN_REQUESTS[name].neutral):
        assert _chat(**{name: value}) == _chat()


def test_true_is_not_1_and_false_is_not_0() -> None:
    assert _param(_completion, best_of=True) == "best_of"
    assert _param(_chat, top_logprobs=False) == "top_logprobs"


def test_best_of_as_many_as_are_wanted_asks_for_nothing() -> None:
    assert _completion(best_of=3, n=3) == _completion(n=3)
    assert _param(_completion, best_of=3, n=2) == "best_of"


def test_null_is_the_default_everywhere() -> None:
    names = {*ChatRequest.model_fields, *IN_REQUESTS} - {"model", "messages"}
    assert _chat(**dict.fromkeys(names)) == _chat()
    names = {*CompletionRequest.model_fields, *IN_REQUESTS} - {"model", "prompt"}
    assert _completion(**dict.fromkeys(names)) == _completion()
    assert _chat(stream=True, stream_options={"include_usage": None}).stream_options == StreamOptions()


def test_an_answer_may_be_sent_back_as_it_came() -> None:
    answer = ChatCompletionMessage.model_validate({"role": "assistant", "content": "Hi.", "refusal": None})
    (message,) = _chat(messages=[answer.model_dump()]).messages
    assert message.for_template() == {"role": "assistant", "content": "Hi."}


def test_a_place_inside_a_message_is_named() -> None:
    def param(**message: Any) -> str | None:
        return _param(_chat, messages=[{"role": "user", "content": "x"}, {"role": "assistant", **message}])

    assert param(content="x", tool_calls=[{}]) == "messages.1.tool_calls"
    assert param(content="x", refusal="no") == "messages.1.refusal"
    assert param(content=None) == "messages.1.content"
    assert param(content=[{"type": "text"}]) == "messages.1.content.0.text"
    assert param(content="x", unheard_of=1) == "messages.1.unheard_of"
    assert _param(_chat, messages=[{"role": "tool", "content": "x"}]) == "messages.0.role"
    assert _param(_chat, messages=["x"]) == "messages.0"
    assert _param(_chat, messages=[]) == "messages"
    assert _param(_chat, messages="x") == "messages"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"logit_bias": {"x": 1}}, "logit_bias.x"),
        ({"logit_bias": {"5": 101}}, "logit_bias.5"),
        ({"logit_bias": [5]}, "logit_bias"),
        ({"metadata": {"a": 1}}, "metadata.a"),
        ({"metadata": dict.fromkeys(map(str, range(17)), "")}, "metadata"),
        ({"bad_words": [""]}, "bad_words.0"),
        ({"bad_words": ["é" * 513]}, "bad_words"),
        ({"stop": [1]}, "stop.0"),
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a b", "schema": {}}}},
            "response_format.json_schema.name",
        ),
        ({"stream": True, "stream_options": {"include_obfuscation": True}}, "stream_options.include_obfuscation"),
        ({"stream_options": {}}, "stream_options"),
        ({"stream": 1}, "stream"),
        ({"n": 1.5}, "n"),
        ({"user": 5}, "user"),
    ],
)
def test_a_wrong_value_is_refused_where_it_stands(fields: dict[str, Any], param: str) -> None:
    assert _param(_chat, **fields) == param
    assert _param(_completion, **fields) == param


@pytest.mark.parametrize(
    ("prompt", "read"),
    [
        ("x", ("x",)),
        (["x"], ("x",)),
        (["x", "y"], ("x", "y")),
        ([1, 2], ([1, 2],)),
        ([[1, 2], [3]], ([1, 2], [3])),
    ],
)
def test_a_prompt_is_one_or_several_texts_or_lists_of_ids(prompt: object, read: object) -> None:
    assert _completion(prompt=prompt).prompt == read


@pytest.mark.parametrize("prompt", [5, [], [[]], ["x", 1], [1, [2]], [True], [-1], [2**31], {}, [["x"]], ["x"] * 129])
def test_another_prompt_is_refused(prompt: object) -> None:
    assert _param(_completion, prompt=prompt) == "prompt"


def test_the_prompt_is_repeated_only_where_that_is_possible() -> None:
    assert _completion(echo=True).echo
    assert _param(_completion, echo=True, logprobs=0) == "echo"
    assert _param(_chat, echo=True) == "echo"


def test_what_is_no_object_is_left_to_the_schema() -> None:
    assert refused.take_out("x", IN_MESSAGES) == "x"

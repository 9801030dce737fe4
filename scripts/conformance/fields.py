"""Fields that not every engine can honour: they do something, or are refused by name."""

from __future__ import annotations

import json
from typing import Any

from scripts.conformance.registry import check
from scripts.conformance.target import COUNTING, Target, equal, need, refused, whole_text, works_or_is_refused

TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}


def _penalty(target: Target, name: str) -> None:
    def texts(**fields: Any) -> list[str]:  # noqa: ANN401
        return [
            whole_text(target.complete(prompt, max_tokens=60, **fields)) for prompt in ("Once upon a time", "a b a")
        ]

    found = works_or_is_refused(name, lambda: texts(**{name: 2.0}))
    need(found is None or found != texts(), "changes nothing")


@check("field", "presence_penalty works or is refused")
def _presence(target: Target) -> None:
    _penalty(target, "presence_penalty")


@check("field", "frequency_penalty works or is refused")
def _frequency(target: Target) -> None:
    _penalty(target, "frequency_penalty")


@check("field", "logit_bias works or is refused")
def _logit_bias(target: Target) -> None:
    answer = works_or_is_refused("logit_bias", lambda: target.complete(max_tokens=6, logit_bias={"300": 100}))
    if answer is not None:
        need(whole_text(answer) != whole_text(target.complete(max_tokens=6)), "changes nothing")


@check("field", "response_format json_object works or is refused")
def _json_object(target: Target) -> None:
    answer = works_or_is_refused(
        "response_format",
        lambda: target.chat("Answer in JSON: a city.", response_format={"type": "json_object"}, max_tokens=100),
    )
    if answer is not None and answer.choices[0].finish_reason == "stop":
        json.loads(whole_text(answer))


@check("field", "response_format json_schema works or is refused")
def _json_schema(target: Target) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "city", "schema": SCHEMA, "strict": True}}
    answer = works_or_is_refused(
        "response_format", lambda: target.chat("Name a city.", response_format=form, max_tokens=100)
    )
    if answer is not None and answer.choices[0].finish_reason == "stop":
        equal(list(json.loads(whole_text(answer))), ["city"])


@check("field", "response_format text is the default")
def _text(target: Target) -> None:
    equal(whole_text(target.chat(response_format={"type": "text"})), whole_text(target.chat()))


@check("field", "tools work or are refused")
def _tools(target: Target) -> None:
    choice = {"type": "function", "function": {"name": "get_weather"}}
    call: Any = lambda: target.chat("Weather in Paris?", tools=[TOOL], tool_choice=choice, max_tokens=60)  # noqa: E731
    try:
        answer = works_or_is_refused("tools", call)
    except Exception:
        answer = works_or_is_refused("tool_choice", call)
    if answer is not None:
        equal(answer.choices[0].message.tool_calls[0].function.name, "get_weather")


@check("field", "an image is refused, or read")
def _image(target: Target) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    answer = target.post(messages=[{"role": "user", "content": [image]}])
    refused(answer, "messages")


@check("field", "what asks for nothing passes")
def _neutral(target: Target) -> None:
    answer = target.post(
        n=1, tools=[], logit_bias={}, store=False, service_tier="auto", modalities=["text"], presence_penalty=0
    )
    equal(answer.status_code, 200)


@check("field", "user and metadata are taken")
def _user(target: Target) -> None:
    equal(target.post(user="u-1", metadata={"a": "b"}).status_code, 200)


@check("field", "audio output is refused")
def _audio(target: Target) -> None:
    refused(target.post(modalities=["text", "audio"], audio={"voice": "alloy", "format": "wav"}), None)


@check("field", "a field that nobody knows is refused")
def _unknown(target: Target) -> None:
    refused(target.post(no_such_field=1), None)


@check("field", "greedy text does not depend on the seed")
def _greedy(target: Target) -> None:
    texts = {whole_text(target.complete(COUNTING, max_tokens=8, seed=seed)) for seed in (1, 2)}
    equal(len(texts), 1)

"""Streams: the wire, the chunks, and that they say what a whole answer says."""

from __future__ import annotations

import json
from typing import Any

from scripts.conformance.registry import check
from scripts.conformance.target import CAPITAL, Target, equal, joined, need, refused, whole_text

LONG = "Count from 1 to 30."


def _chunks(target: Target, **fields: Any) -> list[Any]:  # noqa: ANN401
    return list(target.chat(LONG, stream=True, **fields))


@check("stream", "the wire is events of JSON and [DONE]")
def _wire(target: Target) -> None:
    answer = target.post(stream=True)
    need(answer.headers["content-type"].startswith("text/event-stream"), answer.headers["content-type"])
    events = [event for event in answer.text.replace("\r\n", "\n").split("\n\n") if event and event[0] != ":"]
    equal(events[-1], "data: [DONE]")
    for event in events[:-1]:
        need(event.startswith("data: "), event)
        equal(json.loads(event[6:])["object"], "chat.completion.chunk")


@check("stream", "all chunks have one id, time and model")
def _head(target: Target) -> None:
    heads = {(chunk.id, chunk.created, chunk.model) for chunk in _chunks(target)}
    need(len(heads) == 1, heads)


@check("stream", "it comes in pieces")
def _pieces(target: Target) -> None:
    chunks = _chunks(target)
    need(sum(bool(chunk.choices and chunk.choices[0].delta.content) for chunk in chunks) > 3, len(chunks))


@check("stream", "only the first delta has the role")
def _role(target: Target) -> None:
    roles = [chunk.choices[0].delta.role for chunk in _chunks(target)]
    equal((roles[0], set(roles[1:])), ("assistant", {None}))


@check("stream", "only the last chunk has a finish_reason")
def _reason(target: Target) -> None:
    reasons = [chunk.choices[0].finish_reason for chunk in _chunks(target, max_tokens=8)]
    equal((reasons[-1], set(reasons[:-1])), ("length", {None}))


@check("stream", "the joined text is the whole text")
def _text(target: Target) -> None:
    equal(joined(_chunks(target)), whole_text(target.chat(LONG)))


@check("stream", "include_usage adds a chunk without choices")
def _usage(target: Target) -> None:
    chunks = _chunks(target, stream_options={"include_usage": True})
    equal((chunks[-1].choices, {chunk.usage for chunk in chunks[:-1]}), ([], {None}))
    need(chunks[-1].usage, "no usage")


@check("stream", "its usage is the whole answer's")
def _same_usage(target: Target) -> None:
    usage, whole = _chunks(target, stream_options={"include_usage": True})[-1].usage, target.chat(LONG).usage
    equal(
        (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens),
        (whole.prompt_tokens, whole.completion_tokens, whole.total_tokens),
    )


@check("stream", "without include_usage there is none")
def _no_usage(target: Target) -> None:
    equal({chunk.usage for chunk in _chunks(target)}, {None})


@check("stream", "stream_options without stream is refused")
def _options(target: Target) -> None:
    refused(target.post(stream_options={"include_usage": True}), "stream_options")


@check("stream", "no chunk holds half a character")
def _unicode(target: Target) -> None:
    texts = [
        chunk.choices[0].delta.content or ""
        for chunk in target.chat("Repeat: 🙂🙃 你好 🙂🙃", stream=True, max_tokens=40)
    ]
    need(not any("\ufffd" in text for text in texts), texts)


@check("stream", "an error before the first chunk has its status")
def _early_error(target: Target) -> None:
    refused(target.post(stream=True, temperature=9), "temperature")


@check("stream", "the client's stream helper gathers the answer")
def _helper(target: Target) -> None:
    with target.client.chat.completions.stream(
        model=target.model, messages=[{"role": "user", "content": CAPITAL}], temperature=0
    ) as stream:
        final = stream.get_final_completion()
    equal(final.choices[0].message.content, whole_text(target.chat(max_tokens=200)))

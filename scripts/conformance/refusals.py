"""Wrong requests: the right status, and OpenAI's error object."""

from __future__ import annotations

import json
from functools import partial
from typing import Any, Final

from scripts.conformance.registry import check
from scripts.conformance.target import Target, need, refused

# Name → field that is wrong, body.
WRONG: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "temperature over 2": ("temperature", {"temperature": 2.5}),
    "temperature as text": ("temperature", {"temperature": "hot"}),
    "top_p over 1": ("top_p", {"top_p": 1.5}),
    "max_tokens below 1": ("max_tokens", {"max_tokens": -1}),
    "a penalty over 2": ("presence_penalty", {"presence_penalty": 3}),
    "messages missing": ("messages", {"messages": None}),
    "messages empty": ("messages", {"messages": []}),
    "messages as text": ("messages", {"messages": "Hi"}),
    "an unknown role": ("messages", {"messages": [{"role": "wizard", "content": "x"}]}),
    "content as a number": ("messages", {"messages": [{"role": "user", "content": 5}]}),
    "stop as a number": ("stop", {"stop": 5}),
    "stream as text": ("stream", {"stream": "yes"}),
    "seed as a fraction": ("seed", {"seed": 1.5}),
    "logit_bias of no token": ("logit_bias", {"logit_bias": {"x": 1}}),
}
_HI: Final = b'"messages": [{"role": "user", "content": "Hi"}]'
BROKEN: Final = {
    "no JSON": b"{",
    "no object": b"[]",
    "an empty body": b"",
    "not UTF-8": b'{"model": "\xff"}',
    "NaN": b'{"model": "M", "temperature": NaN, ' + _HI + b"}",
    "an infinite number": b'{"model": "M", "temperature": 1e999, ' + _HI + b"}",
    "half a surrogate pair": b'{"model": "M", "messages": [{"role": "user", "content": "\\ud800"}]}',
    "deep nesting": b'{"model": "M", "messages": ' + b"[" * 5000 + b"]" * 5000 + b"}",
}


def _wrong(param: str, fields: dict[str, Any], target: Target) -> None:
    refused(target.post(**fields), param, 400, 422)


def _broken(content: bytes, target: Target) -> None:
    refused(target.post(content=content.replace(b'"M"', json.dumps(target.model).encode())), None, 400, 422)


for _name, (_param, _fields) in WRONG.items():
    check("error", f"{_name} is refused")(partial(_wrong, _param, _fields))
for _name, _content in BROKEN.items():
    check("error", f"{_name} is refused")(partial(_broken, _content))


@check("error", "a prompt past the context is context_length_exceeded")
def _too_long(target: Target) -> None:
    answer = target.post(messages=[{"role": "user", "content": "word " * 200_000}])
    refused(answer, None, 400, 413)
    need(answer.json()["error"]["code"] in ("context_length_exceeded", "string_above_max_length"), answer.text[:200])


@check("error", "a body of 32 MiB is refused")
def _huge(target: Target) -> None:
    refused(target.post(messages=[{"role": "user", "content": "x" * 2**25}]), None, 400, 413)


@check("error", "an unknown path is 404")
def _path(target: Target) -> None:
    refused(target.http.get("no/such/path"), None, 404)


@check("error", "a wrong method is 405")
def _method(target: Target) -> None:
    refused(target.http.get("chat/completions"), None, 405)


@check("error", "a body that says it is no JSON is refused")
def _content_type(target: Target) -> None:
    answer = target.http.post("chat/completions", content=b"<a/>", headers={"content-type": "text/xml"})
    refused(answer, None, 400, 415, 422)


@check("error", "a token that the vocabulary lacks is refused")
def _token(target: Target) -> None:
    body = {"model": target.model, "prompt": [2**31 - 1], "max_tokens": 1}
    refused(target.http.post("completions", json=body), "prompt")

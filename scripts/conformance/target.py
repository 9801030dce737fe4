"""The server that is asked, and what every check is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import openai

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import httpx

Result = TypeVar("Result")

CAPITAL = "What is the capital of France?"
COUNTING = "1, 2, 3, 4, 5, 6, 7,"


class CheckError(Exception):
    """A server that behaves otherwise than OpenAI's; the message says what was found."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A server, by its official client and by plain HTTP."""

    client: openai.OpenAI
    http: httpx.Client
    model: str

    def chat(self, prompt: str = CAPITAL, **fields: Any) -> Any:  # noqa: ANN401  as the client's overloads give it
        """Ask for a chat of one message; greedy and 24 tokens unless told otherwise."""
        messages = fields.pop("messages", [{"role": "user", "content": prompt}])
        if "max_completion_tokens" not in fields:
            fields.setdefault("max_tokens", 24)
        return self.client.chat.completions.create(
            model=fields.pop("model", self.model), messages=messages, **{"temperature": 0, **fields}
        )

    def complete(self, prompt: Any = COUNTING, **fields: Any) -> Any:  # noqa: ANN401
        """Ask for a completion; greedy unless told otherwise."""
        return self.client.completions.create(model=self.model, prompt=prompt, **{"temperature": 0, **fields})

    def post(self, path: str = "chat/completions", *, content: bytes | None = None, **fields: Any) -> httpx.Response:  # noqa: ANN401
        """Send a body as it is: `content`, or a chat with `fields`."""
        body: dict[str, Any] = {"model": self.model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}
        if content is not None:
            return self.http.post(path, content=content, headers={"content-type": "application/json"})
        return self.http.post(path, json={**body, **fields})


def need(is_right: object, found: object) -> None:
    """Fail unless `is_right`."""
    if not is_right:
        raise CheckError(str(found))


def equal(found: object, expected: object) -> None:
    """Fail unless both are equal."""
    need(found == expected, f"found {found!r}, expected {expected!r}")


def whole_text(answer: Any) -> str:  # noqa: ANN401
    """Return a whole answer's text."""
    choice = answer.choices[0]
    return str(choice.message.content if hasattr(choice, "message") else choice.text)


def joined(chunks: Iterable[Any], index: int = 0) -> str:
    """Return the text of one answer of a stream."""
    texts = []
    for chunk in chunks:
        for choice in chunk.choices:
            if choice.index == index:
                texts.append(choice.delta.content if hasattr(choice, "delta") else choice.text)
    return "".join(text or "" for text in texts)


def works_or_is_refused(field: str, call: Callable[[], Result]) -> Result | None:
    """Return what `call` returns; None if the server refuses `field` by its name with 400."""
    try:
        return call()
    except openai.BadRequestError as error:
        param = error.param or ""
        need(param == field or param.startswith(f"{field}."), f"refused, but param is {error.param!r}: {error.message}")
        return None


def refused(answer: httpx.Response, param: str | None, *statuses: int) -> None:
    """Fail unless `answer` is an error in OpenAI's shape with one of `statuses` (400 if none), about `param`."""
    need(answer.status_code in (statuses or (400,)), f"status {answer.status_code}: {answer.text[:200]}")
    try:
        error = answer.json()["error"]
    except (ValueError, KeyError, TypeError) as failure:
        msg = f"no OpenAI error object: {answer.text[:200]}"
        raise CheckError(msg) from failure
    need(isinstance(error, dict) and {"message", "type", "param", "code"} <= error.keys(), f"found {error!r}")
    if param is not None:
        found = str(error["param"])
        need(found == param or found.startswith(f"{param}."), f"param is {error['param']!r}, expected {param!r}")

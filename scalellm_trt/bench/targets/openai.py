"""OpenAI's API: a question as an HTTP request, the answer out of its body; for our gateway and every server like it."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import orjson

from scalellm_trt.bench.targets.event_stream import NotAnEventStreamError, events
from scalellm_trt.bench.targets.raw import Answer, Piece

if TYPE_CHECKING:
    from scalellm_trt.bench.question import Question
    from scalellm_trt.bench.records import ErrorClass
    from scalellm_trt.bench.targets.http_client import HttpClient
    from scalellm_trt.bench.targets.raw import Raw
    from scalellm_trt.bench.targets.target import Way

PATHS: Final = {"chat": "/chat/completions", "completions": "/completions"}
_BY_STATUS: Final[dict[int, ErrorClass]] = {
    400: "bad_request", 401: "unauthorized", 403: "unauthorized", 404: "not_found", 405: "not_found",
    413: "bad_request", 422: "bad_request", 429: "rate_limited",
}  # fmt: skip


class OpenAiAsker:
    """Asks over HTTP."""

    def __init__(self, way: Way, client: HttpClient) -> None:
        """Take where and how."""
        self._way, self._client = way, client

    async def prepare(self, num_streams: int) -> None:
        """See `Asker`."""
        await self._client.prepare(num_streams)

    async def ask(self, question: Question, request_id: str, timeout_s: float) -> Raw:
        """See `Asker`."""
        return await self._client.exchange(request(self._way, question, request_id), timeout_s)

    def give_up(self) -> None:
        """See `Asker`."""
        self._client.give_up()

    async def close(self) -> None:
        """See `Asker`."""
        self._client.close()
        await asyncio.sleep(0)  # a transport lets go of its socket in the loop's next turn


def base_path(url: str) -> str:
    """Return the path that the API's own paths follow: `/v1` where the URL has none."""
    return urlsplit(url).path.rstrip("/") or "/v1"


def api_key(way: Way) -> str | None:
    """Return the key from the environment variable that the target names."""
    return os.environ.get(way.key_env) if way.key_env else None


def request(way: Way, question: Question, request_id: str) -> bytes:
    """Return the HTTP request."""
    content = orjson.dumps(body(way, question))
    lines = [
        f"POST {base_path(way.url)}{PATHS[way.api]} HTTP/1.1",
        f"Host: {urlsplit(way.url).netloc.rpartition('@')[2]}",
        "Content-Type: application/json",
        f"Accept: {'text/event-stream' if way.streams else 'application/json'}",
        f"X-Request-ID: {request_id}",
        f"Content-Length: {len(content)}",
    ]
    if key := api_key(way):
        lines.append(f"Authorization: Bearer {key}")
    return "\r\n".join([*lines, "", ""]).encode() + content


def body(way: Way, question: Question) -> dict[str, object]:
    """Return the request's content; exactly `max_tokens` tokens are asked for where the server takes that."""
    fields: dict[str, object] = {"model": way.model, "max_tokens": question.max_tokens, "temperature": way.temperature}
    if way.api == "chat":
        fields["messages"] = [{"role": role, "content": content} for role, content in question.messages]
    else:
        fields["prompt"] = question.text
    if way.streams:
        fields |= {"stream": True, "stream_options": {"include_usage": True}}
    if way.forces_length:
        fields |= {"ignore_eos": True, "min_tokens": question.max_tokens}
    return fields


def read(raw: Raw) -> Answer:
    """Return the answer in a response, whether it came in parts or as a whole."""
    answer = Answer()
    if raw.error is not None:
        answer.fail(raw.error, raw.error_text or "")
    content = b"".join(piece for _, piece in raw.pieces)
    if raw.status is not None and raw.status != 200:
        answer.fail(*_refusal(raw.status, content))
    elif raw.status == 200 and raw.content_type.startswith("text/event-stream"):
        _read_events(raw, answer)
    elif raw.status == 200:
        _read_whole(raw, content, answer)
    return answer


def _read_events(raw: Raw, answer: Answer) -> None:
    has_ended = False
    try:
        for at_s, data in events(raw.pieces):
            if data == b"[DONE]":
                has_ended = True
            elif data:
                _take(orjson.loads(data), at_s, answer)
    except (ValueError, TypeError, AttributeError, KeyError, IndexError) as error:
        what = str(error) if isinstance(error, NotAnEventStreamError) else f"an event that cannot be read: {error}"
        answer.fail("garbage", what)
    if not has_ended and answer.finish_reason is None and not raw.was_cancelled:
        answer.fail("connection_lost" if raw.pieces else "garbage", "the stream ended without its end")


def _read_whole(raw: Raw, content: bytes, answer: Answer) -> None:
    try:
        _take(orjson.loads(content), raw.end_s, answer)
    except (ValueError, TypeError, AttributeError, KeyError, IndexError) as error:
        if not raw.was_cancelled:
            answer.fail("garbage", f"neither JSON nor an event stream: {error}: {content[:80]!r}")
        return
    if not answer.pieces and answer.finish_reason is None:
        answer.fail("garbage", f"JSON that is no answer: {content[:80]!r}")


def _take(event: Any, at_s: float, answer: Answer) -> None:  # noqa: ANN401  a stranger's JSON
    if event.get("error"):
        answer.fail(*_error_of(event["error"]))
        return
    for choice in event.get("choices") or ():
        part = choice.get("delta") or choice.get("message") or choice
        text = "".join(part.get(name) or "" for name in ("reasoning_content", "reasoning", "content", "text"))
        if text:
            answer.pieces.append(Piece(at_s=at_s, text=text))
        answer.finish_reason = choice.get("finish_reason") or answer.finish_reason
    if usage := event.get("usage"):
        answer.server_isl, answer.server_osl = usage.get("prompt_tokens"), usage.get("completion_tokens")
        answer.cached_tokens = (usage.get("prompt_tokens_details") or {}).get("cached_tokens")


def _error_of(error: object) -> tuple[ErrorClass, str]:
    """Return the class of an error inside of a stream, which has the status 200 before it."""
    fields = error if isinstance(error, dict) else {"message": error}
    code = fields.get("code")
    if isinstance(code, int) and code >= 400:
        return _BY_STATUS.get(code, "server_error"), str(fields.get("message"))
    return "server_error", str(fields.get("message"))


def _refusal(status: int, content: bytes) -> tuple[ErrorClass, str]:
    """Return the class and the text of an answer whose status is not 200."""
    text = content[:300].decode("utf-8", "replace")
    code: object = None
    try:
        error = orjson.loads(content)
        error = error.get("error", error)
        if isinstance(error, dict):
            text, code = str(error.get("message") or text), error.get("code")
    except (ValueError, AttributeError):
        pass
    kind = _BY_STATUS.get(status, "server_error" if status >= 500 else "garbage")
    if kind in ("not_found", "bad_request") and (code == "model_not_found" or _names_a_model(text)):
        kind = "wrong_model"
    return kind, f"HTTP {status}: {text}"


def _names_a_model(text: str) -> bool:
    lower = text.lower()
    return "model" in lower and any(words in lower for words in ("not found", "does not exist", "no such", "unknown"))

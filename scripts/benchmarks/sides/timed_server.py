"""Stands for a server with OpenAI's API whose times are known: the first token after a delay, the others a gap apart.

    python -m scripts.benchmarks.sides.timed_server PORT TTFT_MS GAP_MS

Prints the port once it listens (PORT 0 takes a free one). `GET /log` gives when each request came and when each token
was written, in seconds of the machine's monotonic clock, by X-Request-ID, or by number where a client sends none; it is
empty again afterwards.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any, Final

import httptools
import orjson
import uvloop

MODEL: Final = "timed"
WORD: Final = " abc"
NUM_TOKENS: Final = 200
_HEAD: Final = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


class Emission:
    """What is known of a request."""

    def __init__(self) -> None:
        self.received_s = time.monotonic()
        self.emitted_s: list[float] = []


class Server(asyncio.Protocol):
    """One connection, which is kept for the next request."""

    def __init__(self, ttft_s: float, gap_s: float, log: dict[str, Emission]) -> None:
        self._ttft_s, self._gap_s, self._log = ttft_s, gap_s, log
        self._parser = httptools.HttpRequestParser(self)
        self._loop = asyncio.get_running_loop()
        self._body, self._path, self._request_id = b"", b"", ""
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:  # noqa: ANN401  uvloop's is not asyncio's
        """See `asyncio.Protocol`."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        """See httptools."""
        self._path, self._body, self._request_id = url, b"", ""

    def on_header(self, name: bytes, value: bytes) -> None:
        """See httptools."""
        if name.lower() == b"x-request-id":
            self._request_id = value.decode()

    def on_body(self, body: bytes) -> None:
        """See httptools."""
        self._body += body

    def on_message_complete(self) -> None:
        """Answer."""
        if self._path == b"/log":
            times = {name: [each.received_s, *each.emitted_s] for name, each in self._log.items()}
            self._log.clear()
            self._answer(times)
        elif not self._path.endswith(b"/completions"):  # /v1/models, and what tools ask whether it is well
            self._answer({"object": "list", "data": [{"id": MODEL, "object": "model"}]})
        else:
            question = orjson.loads(self._body)
            self._begin(question, question.get("max_tokens") or question.get("max_completion_tokens") or NUM_TOKENS)

    def _begin(self, question: dict[str, Any], num_tokens: int) -> None:
        emission = Emission()
        self._log[self._request_id or f"#{len(self._log)}"] = emission
        if not question.get("stream"):
            text = WORD * num_tokens
            choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "length"}
            self._answer({"choices": [choice]})
            return
        self.transport.write(_HEAD)
        due_s = self._loop.time() + self._ttft_s
        self._loop.call_at(due_s, self._step, emission, num_tokens, due_s)

    def _step(self, emission: Emission, max_tokens: int, due_s: float) -> None:
        """Write a token, and be due again a gap after this one was due."""
        if self.transport.is_closing():
            return
        is_last = len(emission.emitted_s) + 1 == max_tokens
        emission.emitted_s.append(time.monotonic())
        self.transport.write(_event(WORD, "length" if is_last else None) + (_ending(max_tokens) if is_last else b""))
        if not is_last:
            self._loop.call_at(due_s + self._gap_s, self._step, emission, max_tokens, due_s + self._gap_s)

    def _answer(self, content: object) -> None:
        body = orjson.dumps(content)
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        self.transport.write(head.encode() + body)


def _event(text: str, finish_reason: str | None) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish_reason}
    return _chunk(b"data: " + orjson.dumps({"id": "chatcmpl-1", "model": MODEL, "choices": [choice]}) + b"\n\n")


def _ending(num_tokens: int) -> bytes:
    usage = {"prompt_tokens": None, "completion_tokens": num_tokens}
    last = b"data: " + orjson.dumps({"id": "chatcmpl-1", "choices": [], "usage": usage}) + b"\n\ndata: [DONE]\n\n"
    return _chunk(last) + b"0\r\n\r\n"


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def serve(port: int, ttft_s: float, gap_s: float) -> None:
    """Serve until the process is ended."""
    log: dict[str, Emission] = {}
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Server(ttft_s, gap_s, log), "127.0.0.1", port)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), float(sys.argv[2]) / 1000, float(sys.argv[3]) / 1000))

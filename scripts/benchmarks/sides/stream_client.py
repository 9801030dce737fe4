"""The measuring end of a gateway's benchmark: N streams at once, directly over gRPC or through what speaks HTTP.

python -m scripts.benchmarks.sides.stream_client EMISSIONS
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httptools
import numpy as np
import orjson
import uvloop

from scalellm_trt.gateway import tensors
from scalellm_trt.gateway.http2_upstream import Http2Upstream
from scripts.benchmarks.sides import worker
from scripts.benchmarks.sides.paced_repository import COLUMNS, LEFT, ROWS, WORD_LENGTH

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scalellm_trt.gateway.errors import ApiError

TIMEOUT_S = 60
LEAVE_WAIT_S = 0.3
IDLE_S = 0.05


@dataclass(slots=True)
class Stream:
    """What came of one request, by the monotonic clock."""

    row: int
    sent_s: float = 0.0
    received_s: list[float] = field(default_factory=list)
    num_events: int = 0
    has_ended: asyncio.Event = field(default_factory=asyncio.Event)
    failure: str = ""

    def take(self, num_tokens: int) -> None:
        """Note tokens that have just come."""
        if num_tokens:
            self.received_s += [time.monotonic()] * num_tokens
            self.num_events += 1

    def end(self, failure: str = "") -> None:
        """Note the end."""
        self.failure = failure
        self.has_ended.set()


class _Direct:
    """Listens to a call."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def on_messages(self, messages: list[Any]) -> None:
        for message in messages:
            response = message.infer_response
            self._stream.take(len(response.raw_output_contents[0]) // 4 if response.outputs else 0)

    def on_end(self, error: ApiError | None) -> None:
        self._stream.end(error.message if error else "")


class _Http(asyncio.Protocol):
    """One HTTP connection: a request, and the events of its answer."""

    def __init__(self, stream: Stream, request: bytes) -> None:
        self._stream, self._request = stream, request
        self._parser = httptools.HttpResponseParser(self)
        self._rest = b""
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:  # noqa: ANN401  uvloop's is not asyncio's
        self.transport = transport

    def send(self) -> None:
        self._stream.sent_s = time.monotonic()
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        *lines, self._rest = (self._rest + body).split(b"\n")
        for line in lines:
            if line.startswith(b"data: {"):
                choices = orjson.loads(line[6:]).get("choices") or [{}]
                text = choices[0].get("delta", {}).get("content") or ""
                self._stream.take(len(text) // WORD_LENGTH)
            elif line.startswith(b"{"):
                self._stream.failure = line.decode()

    def on_message_complete(self) -> None:
        self._stream.end(self._stream.failure)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._stream.has_ended.is_set():
            self._stream.end(f"the connection was closed: {exc}")


async def run(question: dict[str, Any], emitted: np.ndarray[Any, Any]) -> dict[str, object]:
    """Take all streams of one cell, `at_once` at a time."""
    streams = [Stream(row=(question["first_row"] + index) % ROWS) for index in range(question["streams"])]
    if question["num_before_leaving"]:
        return await _leave(question, streams, emitted)
    size = question["at_once"]
    groups = [streams[index : index + size] for index in range(0, len(streams), size)]
    if question["kind"] == "direct":
        await _take_direct(question, groups)
    else:
        for group in groups:
            await _take_http(question, group)
    failures = [stream.failure for stream in streams if stream.failure]
    if failures:
        msg = f"{question['url']}: {len(failures)} streams failed: {failures[0]}"
        raise SystemExit(msg)
    return _summary(question, streams, emitted)


async def _take_direct(question: dict[str, Any], groups: Sequence[Sequence[Stream]]) -> None:
    upstream = Http2Upstream(question["url"], 4)
    await asyncio.gather(*(_connect(upstream) for _ in range(4)))
    for streams in groups:
        await asyncio.sleep(IDLE_S)  # the model's next step for what came before would be waited for
        await _begin_direct(upstream, question, streams)
        await _ends(streams)
    await upstream.close()


async def _begin_direct(upstream: Http2Upstream, question: dict[str, Any], streams: Sequence[Stream]) -> None:
    for stream in streams:
        generation = tensors.Generation(
            model=question["model"],
            request_id="",
            input_ids=[1] * 20,
            max_tokens=question["tokens"],
            temperature=0.0,
            top_p=1.0,
            is_stream=True,
            seed=stream.row,
        )
        stream.sent_s = time.monotonic()
        await upstream.start(tensors.encode(generation), _Direct(stream))


async def _connect(upstream: Http2Upstream) -> None:
    from tritonclient.grpc import service_pb2

    await upstream.unary("ServerReady", service_pb2.ServerReadyRequest(), 5)


async def _take_http(question: dict[str, Any], streams: Sequence[Stream]) -> None:
    # As clients with a pool of connections do, and as the direct side does.
    protocols = [await _connect_http(question, stream) for stream in streams]
    await asyncio.sleep(IDLE_S)
    for protocol in protocols:
        protocol.send()
    await _ends(streams)
    for protocol in protocols:
        protocol.transport.close()


async def _connect_http(question: dict[str, Any], stream: Stream) -> _Http:
    host, _, port = question["url"].removeprefix("http://").rpartition(":")
    body: dict[str, object] = {
        "model": question["model"],
        "messages": [{"role": "user", "content": "a question"}],
        "max_tokens": question["tokens"],
        "stream": True,
        "seed": stream.row,
    }
    if question["num_before_leaving"]:
        body["min_tokens"] = 1  # asks the model to look whether the client has gone
    content = orjson.dumps(body)
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {question['key']}\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    loop = asyncio.get_running_loop()
    _, protocol = await loop.create_connection(lambda: _Http(stream, head.encode() + content), host, int(port))
    return protocol


async def _ends(streams: Sequence[Stream]) -> None:
    await asyncio.wait_for(asyncio.gather(*(stream.has_ended.wait() for stream in streams)), TIMEOUT_S)


async def _leave(
    question: dict[str, Any], streams: Sequence[Stream], emitted: np.ndarray[Any, Any]
) -> dict[str, object]:
    """Close each stream's connection in its middle, one after the other; return when the model saw it."""
    seen_ms = []
    for stream in streams:
        emitted[stream.row, LEFT] = 0.0
        protocol = await _connect_http(question, stream)
        protocol.send()
        while len(stream.received_s) < question["num_before_leaving"]:
            await asyncio.sleep(0.001)
        left_s = time.monotonic()
        protocol.transport.abort()
        await asyncio.sleep(LEAVE_WAIT_S)
        seen_s = float(emitted[stream.row, LEFT])
        seen_ms.append((seen_s - left_s) * 1000 if seen_s else LEAVE_WAIT_S * 1000)
    return {"seen_ms": seen_ms}


def _summary(question: dict[str, Any], streams: Sequence[Stream], emitted: np.ndarray[Any, Any]) -> dict[str, object]:
    expected = question["tokens"]
    short = [len(stream.received_s) for stream in streams if len(stream.received_s) != expected]
    if short:
        msg = f"{question['url']}: {len(short)} streams without all {expected} tokens: {short[:5]}"
        raise SystemExit(msg)
    received = np.array([stream.received_s for stream in streams])
    lags_ms = (received - np.array([emitted[stream.row, :expected] for stream in streams])) * 1000
    size = question["at_once"]
    groups = [slice(index, index + size) for index in range(0, len(streams), size)]
    low, high = np.percentile(lags_ms, [50, 99])
    return {
        "num_tokens": received.size,
        "num_events": sum(stream.num_events for stream in streams),
        "seconds": sum(float(received[group].max()) - streams[group.start].sent_s for group in groups),
        "ttft_ms": statistics.median((stream.received_s[0] - stream.sent_s) * 1000 for stream in streams),
        "lag_p50_ms": float(low),
        "lag_p99_ms": float(high),
    }


def main() -> None:
    emitted = np.memmap(sys.argv[1], dtype=np.float64, mode="r+", shape=(ROWS, COLUMNS))
    worker.answer_questions({}, lambda question: uvloop.run(run(question, emitted)))


if __name__ == "__main__":
    main()

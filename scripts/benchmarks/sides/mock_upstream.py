"""Stands for tritonserver where its own cost would drown the gateway's: HTTP/2, one token each 10 ms for every stream.

python -m scripts.benchmarks.sides.mock_upstream PORT EMISSIONS: all streams of a connection leave in one write.
"""

from __future__ import annotations

import asyncio
import struct
import sys
import time

import numpy as np
import uvloop
from tritonclient.grpc import service_pb2

from scalellm_trt.triton import grpc_messages
from scalellm_trt.triton import http2_frames as h2
from scalellm_trt.triton.grpc_messages import MessageReader
from scalellm_trt.triton.http2_frames import FrameReader
from scripts.benchmarks.sides.paced_repository import COLUMNS, ROWS

STEP_S = 0.01
OK_HEADERS = b"\x88"  # :status 200
OK_TRAILERS = b"\x10\x0bgrpc-status\x010"


def _token(number: int, *, is_last: bool) -> bytes:
    message = service_pb2.ModelStreamInferResponse()
    response = message.infer_response
    response.model_name, response.model_version = "paced", "1"
    response.parameters["triton_final_response"].bool_param = is_last
    tensors = [("output_ids", "INT32", [1, 1, 1], struct.pack("<i", 256 + number % 1000))]
    tensors.append(("sequence_length", "INT32", [1, 1], struct.pack("<i", 1)))
    if is_last:
        tensors.append(("finish_reason", "BYTES", [1, 1], struct.pack("<I", 6) + b"length"))
    for name, kind, shape, raw in tensors:
        response.outputs.add(name=name, datatype=kind, shape=shape)
        response.raw_output_contents.append(raw)
    return grpc_messages.framed(message.SerializeToString())


TOKENS = [_token(number, is_last=False) for number in range(COLUMNS)]
LAST = _token(0, is_last=True)


class Server(asyncio.Protocol):
    """One connection."""

    def __init__(self, emitted: np.ndarray[tuple[int, int], np.dtype[np.float64]]) -> None:
        self._emitted = emitted
        self._frames = FrameReader()
        self._readers: dict[int, MessageReader] = {}
        self._live: dict[int, list[int]] = {}
        self._has_greeted = False
        self.transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.WriteTransport) -> None:  # type: ignore[override]
        """Greet, with windows that never close."""
        self.transport = transport
        transport.write(h2.settings({}) + h2.window_update(0, 2**30))

    def data_received(self, data: bytes) -> None:
        """Take requests, and cancels."""
        if not self._has_greeted:
            data, self._has_greeted = data.removeprefix(h2.PREFACE), True
        for kind, flags, stream_id, payload in self._frames.feed(data):
            if kind == h2.DATA:
                for message in self._readers.setdefault(stream_id, MessageReader()).feed(payload):
                    self._begin(stream_id, message)
            elif kind == h2.RST_STREAM:
                self._live.pop(stream_id, None)
            elif kind == h2.PING and not flags & h2.ACK:
                self._write(h2.frame(h2.PING, h2.ACK, 0, payload))

    def step(self) -> None:
        """Send every stream a token."""
        output = []
        for stream_id, state in list(self._live.items()):
            row, number, max_tokens = state
            state[1] += 1
            self._emitted[row, number] = time.monotonic()
            is_last = state[1] == max_tokens
            output.append(h2.frame(h2.DATA, 0, stream_id, LAST if is_last else TOKENS[number]))
            if is_last:
                output.append(h2.frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, stream_id, OK_TRAILERS))
                del self._live[stream_id]
        if output:
            self._write(b"".join(output))

    def _begin(self, stream_id: int, message: bytes) -> None:
        self._write(h2.frame(h2.HEADERS, h2.END_HEADERS, stream_id, OK_HEADERS))
        try:
            request = service_pb2.ModelInferRequest.FromString(message)
            raw = {
                tensor.name: content
                for tensor, content in zip(request.inputs, request.raw_input_contents, strict=False)
            }
            row, max_tokens = struct.unpack("<Q", raw["seed"])[0], struct.unpack("<i", raw["max_tokens"])[0]
        except (KeyError, ValueError):
            ready = grpc_messages.framed(service_pb2.ServerReadyResponse(ready=True).SerializeToString())
            ending = h2.frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, stream_id, OK_TRAILERS)
            self._write(h2.frame(h2.DATA, 0, stream_id, ready) + ending)
            return
        self._live[stream_id] = [row % ROWS, 0, max_tokens]

    def _write(self, data: bytes) -> None:
        assert self.transport is not None
        if not self.transport.is_closing():
            self.transport.write(data)


async def serve(port: int, emissions: str) -> None:
    """Serve until the process is ended."""
    emitted = np.memmap(emissions, dtype=np.float64, mode="r+", shape=(ROWS, COLUMNS))
    servers: list[Server] = []

    def connect() -> Server:
        servers.append(Server(emitted))
        return servers[-1]

    await asyncio.get_running_loop().create_server(connect, "127.0.0.1", port)
    print("ready", flush=True)
    due = time.monotonic()
    while True:
        due = max(due + STEP_S, time.monotonic())
        await asyncio.sleep(due - time.monotonic())
        for server in servers:
            server.step()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), sys.argv[2]))

"""A server with OpenAI's API that behaves well or badly, as told: what a load generator must survive and name."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

Behaviour = Literal[
    "good", "whole", "not_found", "wrong_model", "server_error", "rate_limited", "unauthorized", "bad_request", "hangs",
    "hangs_in_the_middle", "garbage", "garbage_events", "error_event", "closes", "closes_in_the_middle", "redirects",
    "closes_after_each",
]  # fmt: skip

TLS_HANDSHAKE = b"\x16"
_REFUSALS = {
    "not_found": (404, "no such page"),
    "wrong_model": (404, "The model `x` does not exist"),
    "server_error": (500, "it broke"),
    "rate_limited": (429, "slow down"),
    "unauthorized": (401, "who are you"),
    "bad_request": (400, "temperature: too hot"),
    "redirects": (302, "elsewhere"),
}


class BadServer:
    """Listens on `url`; `requests` are the bodies that came."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour: Behaviour = behaviour
        self.requests: list[dict[str, object]] = []
        self.heads: list[str] = []
        self.num_connections = 0
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._is_closed = threading.Event()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        self._is_closed.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join()
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while not self._is_closed.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.num_connections += 1
            self._open.append(connection)
            self._threads.append(threading.Thread(target=self._serve, args=(connection,)))
            self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection, connection.makefile("rb") as file:
            if connection.recv(1, socket.MSG_PEEK) == TLS_HANDSHAKE:
                return
            while head := _head_of(file):
                if head.startswith("PRI "):
                    connection.sendall(b"HTTP/1.1 505 HTTP Version Not Supported\r\ncontent-length: 0\r\n\r\n")
                    return
                self.heads.append(head)
                content = file.read(_length_of(head))
                if head.startswith("GET"):
                    _send_json(connection, 200, {"data": [{"id": "x"}]})
                    continue
                self.requests.append(json.loads(content))
                if not self._answer(connection, self.requests[-1]):
                    return

    def _answer(self, connection: socket.socket, body: dict[str, object]) -> bool:
        """Answer a request; return whether the connection goes on."""
        if self.behaviour in _REFUSALS:
            status, message = _REFUSALS[self.behaviour]
            _send_json(connection, status, {"error": {"message": message}})
            return True
        if self.behaviour == "hangs":
            self._is_closed.wait()
        elif self.behaviour == "garbage":
            connection.sendall(b"\x00\x01 this is no HTTP\r\n\r\n")
        elif self.behaviour != "closes":
            return self._send_answer(connection, body)
        return False

    def _send_answer(self, connection: socket.socket, body: dict[str, object]) -> bool:
        if not body.get("stream"):
            choice = {"message": {"content": "abc"}, "finish_reason": "length"}
            _send_json(connection, 200, {"choices": [choice], "usage": {"prompt_tokens": 5, "completion_tokens": 3}})
            return True
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        _send_event(connection, {"choices": [{"delta": {"role": "assistant", "content": ""}}]})
        _send_event(connection, {"choices": [{"delta": {"content": "ab"}}]})
        if self.behaviour == "hangs_in_the_middle":
            self._is_closed.wait()
        if self.behaviour == "closes_in_the_middle":
            return False
        if self.behaviour == "garbage_events":
            _send_chunk(connection, b"data: {nonsense\n\n")
        if self.behaviour == "error_event":
            _send_event(connection, {"error": {"message": "out of memory", "code": 500}})
        else:
            _send_event(connection, {"choices": [{"delta": {"content": "c"}, "finish_reason": "length"}]})
            usage = {"prompt_tokens": 5, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 2}}
            _send_event(connection, {"choices": [], "usage": usage})
        _send_chunk(connection, b"data: [DONE]\n\n")
        connection.sendall(b"0\r\n\r\n")
        return self.behaviour != "closes_after_each"


def _head_of(file: BinaryIO) -> str:
    lines = []
    while (line := file.readline()) not in (b"\r\n", b""):
        lines.append(line.decode("latin-1"))
    return "".join(lines)


def _length_of(head: str) -> int:
    lines = [line.lower() for line in head.splitlines()]
    return next((int(line.split(":")[1]) for line in lines if line.startswith("content-length")), 0)


def _send_json(connection: socket.socket, status: int, content: object) -> None:
    body = json.dumps(content).encode()
    head = f"HTTP/1.1 {status} Said\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)


def _send_event(connection: socket.socket, content: object) -> None:
    _send_chunk(connection, b"data: " + json.dumps(content).encode() + b"\n\n")


def _send_chunk(connection: socket.socket, data: bytes) -> None:
    connection.sendall(b"%x\r\n%b\r\n" % (len(data), data))


@contextlib.contextmanager
def running(behaviour: Behaviour) -> Iterator[BadServer]:
    """Have one until the block ends."""
    server = BadServer(behaviour)
    try:
        yield server
    finally:
        server.close()

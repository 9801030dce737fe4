"""An HTTP/1.1 client that keeps when each part of a body came, and does nothing else with it.

Not one of the general clients: with 64 streams of 200 tokens a second they take most of a core, and a client that is
late measures itself. Connections are kept for the next request, as other clients do.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import httptools

from scalellm_trt.bench.targets.raw import Raw

if TYPE_CHECKING:
    from pathlib import Path

MAX_BODY_BYTES: Final = 64 * 2**20
PREPARE_TIMEOUT_S: Final = 5.0
DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class Connection(asyncio.Protocol):
    """One connection and the request that it is busy with."""

    def __init__(self) -> None:
        """Wait to be connected."""
        self.transport: Any = None  # uvloop's are not derived from asyncio's
        self.is_reusable = True
        self._raw: Raw | None = None
        self._done: asyncio.Future[None] | None = None
        self._parser: Any = None
        self._now = 0.0
        self._num_bytes = 0
        self._has_length = False

    @property
    def is_open(self) -> bool:
        """Whether the next request may take it."""
        return self.is_reusable and self.transport is not None and not self.transport.is_closing()

    def send(self, request: bytes, raw: Raw) -> asyncio.Future[None]:
        """Write a request; the result is set when its answer has ended one way or another."""
        self._raw, self._parser = raw, httptools.HttpResponseParser(self)
        self._num_bytes, self._has_length = 0, False
        self._done = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self._done

    def cancel(self) -> None:
        """Give the answer up."""
        if self._raw is not None:
            self._raw.was_cancelled = True
        self.end()

    def end(self) -> None:
        """Stop waiting; a connection in the middle of an answer is of no more use."""
        if self._raw is not None:
            self.is_reusable = False
            self.transport.abort()
            self._finish()

    def connection_made(self, transport: Any) -> None:  # noqa: ANN401
        """See `asyncio.Protocol`."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`; whatever came in one read came at the same time."""
        self._now = time.monotonic()
        if self._raw is None or self._parser is None:
            self.is_reusable = False  # an answer to nothing
            self.transport.abort()
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._break("the server wants to change the protocol")
        except httptools.HttpParserError as error:
            self._break(f"not HTTP: {error}: {data[:80]!r}")

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self.is_reusable = False
        if self._raw is None:
            return
        # A body without a length ends with its connection; every other one has lost something.
        if self._raw.status is None or self._has_length:
            what = "before an answer" if self._raw.status is None else "in the middle of an answer"
            self._raw.fail("connection_lost", f"the connection was closed {what}{f': {exc}' if exc else ''}")
        self._now = time.monotonic()
        self._finish()

    def on_header(self, name: bytes, value: bytes) -> None:
        """See httptools."""
        lower = name.lower()
        if lower == b"content-type" and self._raw is not None:
            self._raw.content_type = value.decode("latin-1")
        elif lower in (b"content-length", b"transfer-encoding"):
            self._has_length = True

    def on_headers_complete(self) -> None:
        """See httptools."""
        if self._raw is not None:
            self._raw.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        """See httptools."""
        assert self._raw is not None
        self._raw.pieces.append((self._now, body))
        self._num_bytes += len(body)
        if self._num_bytes > MAX_BODY_BYTES:
            self._break(f"an answer of more than {MAX_BODY_BYTES} bytes")

    def on_message_complete(self) -> None:
        """See httptools."""
        if self._raw is not None and self._raw.status is not None and self._raw.status >= 200:
            self.is_reusable = self.is_reusable and bool(self._parser.should_keep_alive())
            self._finish()

    def _break(self, reason: str) -> None:
        assert self._raw is not None
        self._raw.fail("garbage", reason)
        self.end()

    def _finish(self) -> None:
        if self._raw is not None:
            self._raw.end_s, self._raw = self._now or time.monotonic(), None
        if self._done is not None and not self._done.done():
            self._done.set_result(None)


class HttpClient:
    """A pool of connections to one server."""

    def __init__(self, url: str, ca_file: Path | None = None) -> None:
        """Take `scheme://host[:port]`, and whom to trust where the system does not."""
        parts = urlsplit(url)
        assert parts.hostname is not None
        self._host, self._port = parts.hostname, parts.port or DEFAULT_PORTS[parts.scheme]
        self._tls = ssl.create_default_context(cafile=ca_file) if parts.scheme == "https" else None
        self._idle: list[Connection] = []
        self._busy: set[Connection] = set()
        self._opening: set[asyncio.Task[Connection]] = set()
        self._is_given_up = False

    async def prepare(self, num_connections: int) -> None:
        """Open connections until so many are idle; those that cannot be opened will be missed later."""
        self._idle = [connection for connection in self._idle if connection.is_open]
        missing = num_connections - len(self._idle)
        opened = (
            await asyncio.wait([asyncio.ensure_future(self._open()) for _ in range(missing)], timeout=PREPARE_TIMEOUT_S)
            if missing > 0
            else (set(), set())
        )
        for task in opened[1]:
            task.cancel()
        self._idle += [task.result() for task in opened[0] if task.exception() is None]

    async def exchange(self, request: bytes, timeout_s: float) -> Raw:
        """Send a request and return what came of it, within the timeout."""
        raw = Raw(sent_s=time.monotonic())
        self._is_given_up = False
        try:
            await asyncio.wait_for(self._exchange(request, raw), timeout_s)
        except asyncio.TimeoutError:
            raw.fail("timeout", f"no whole answer within {timeout_s:g} s")
        except asyncio.CancelledError:
            if not self._is_given_up:
                raise
            raw.was_cancelled = True
        if not raw.end_s:
            raw.end_s = time.monotonic()
        return raw

    def give_up(self) -> None:
        """End every exchange."""
        self._is_given_up = True
        for task in self._opening:
            task.cancel()
        for connection in list(self._busy):
            connection.cancel()

    def close(self) -> None:
        """Close the connections that are idle."""
        for connection in self._idle:
            connection.transport.abort()
        self._idle.clear()

    async def _exchange(self, request: bytes, raw: Raw) -> None:
        while True:
            connection, is_new = await self._connection(raw)
            if connection is None:
                return
            self._busy.add(connection)
            try:
                await connection.send(request, raw)
            finally:
                self._busy.discard(connection)
                connection.end()
            if connection.is_open:
                self._idle.append(connection)
            # A server may close an idle connection at the moment when it is used again: that is no failure of its.
            if is_new or raw.error != "connection_lost" or raw.status is not None:
                return
            raw.error = raw.error_text = None
            raw.end_s = 0.0

    async def _connection(self, raw: Raw) -> tuple[Connection | None, bool]:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                return connection, False
        opening = asyncio.get_running_loop().create_task(self._open())
        self._opening.add(opening)
        try:
            return await opening, True
        except ssl.SSLError as error:
            raw.fail("tls", f"{type(error).__name__}: {error}")
        except ConnectionResetError as error:
            # Also how a server that does not speak TLS answers the beginning of it.
            raw.fail("tls" if self._tls else "connection_lost", f"the connection was closed at its beginning: {error}")
        except OSError as error:
            raw.fail("refused", f"{self._host}:{self._port}: {error}")
        finally:
            self._opening.discard(opening)
        return None, True

    async def _open(self) -> Connection:
        loop = asyncio.get_running_loop()
        transport, connection = await loop.create_connection(Connection, self._host, self._port, ssl=self._tls)
        plain = transport.get_extra_info("socket")
        if plain is not None and plain.family in (socket.AF_INET, socket.AF_INET6):
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

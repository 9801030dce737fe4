"""Servers are looked up, new lists are taken over, and what cannot be read changes nothing."""

from __future__ import annotations

import asyncio
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from scalellm_trt.gateway.fleet import discovery
from scalellm_trt.gateway.fleet.discovery import DiscoveryError, DnsSource, FileSource, RegistrySource
from scalellm_trt.gateway.options import DiscoveryOptions, ServerOptions

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

ONE = ServerOptions(name="a", url="h:1")
TWO = ServerOptions(name="b", url="h:2", weight=3.0, group="tp")


def test_a_file_has_the_section_servers(tmp_path: Path) -> None:
    file = tmp_path / "servers.yaml"
    file.write_text("servers:\n  a: {url: 'h:1'}\n  b: {url: 'h:2', weight: 3, group: tp}\n")
    assert list(asyncio.run(FileSource(file).look())) == [ONE, TWO]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "servers.yaml"),
        ("servers:\n  a: {url: h}\n", "servers.a.url"),
        ("servers:\n  a: {}\n", "servers.a.url: Field required"),
        ("server: {}\n", "servers: Field required"),
        ("servers:\n  a: {url: 'h:1'}\n  a: {url: 'h:2'}\n", "servers.a: is written twice"),
    ],
)
def test_a_damaged_file_is_told_with_its_place(tmp_path: Path, text: str | None, message: str) -> None:
    file = tmp_path / "servers.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(DiscoveryError) as error:
        FileSource(file).read()
    assert message in str(error.value)


def test_every_address_of_a_name_is_a_server() -> None:
    assert list(asyncio.run(DnsSource("127.0.0.1:8001").look())) == [
        ServerOptions(name="127.0.0.1:8001", url="127.0.0.1:8001")
    ]
    urls = [server.url for server in asyncio.run(DnsSource("localhost:8001").look())]
    assert set(urls) & {"127.0.0.1:8001", "[::1]:8001"}
    with pytest.raises(DiscoveryError, match=r"no-such-host\.invalid is not found"):
        asyncio.run(DnsSource("no-such-host.invalid:1").look())


@pytest.fixture
def registry() -> Iterator[Any]:
    class Handler(BaseHTTPRequestHandler):
        body = b""

        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(Handler.body)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Handler, f"http://127.0.0.1:{server.server_port}/servers"
    server.shutdown()
    server.server_close()


def test_a_registry_answers_the_same_as_json(registry: Any) -> None:
    handler, url = registry
    handler.body = json.dumps({"servers": {"a": {"url": "h:1"}}}).encode()
    assert list(asyncio.run(RegistrySource(url).look())) == [ONE]
    for body in (b"{", b"[]", b'{"servers": {"a": {"url": "h:1", "colour": "red"}}}'):
        handler.body = body
        with pytest.raises(DiscoveryError, match=r"127\.0\.0\.1"):
            asyncio.run(RegistrySource(url).look())
    with pytest.raises(DiscoveryError, match="refused"):
        asyncio.run(RegistrySource("http://127.0.0.1:9/").look())


def test_one_source_is_chosen(tmp_path: Path) -> None:
    assert discovery.source(DiscoveryOptions()) is None
    assert isinstance(discovery.source(DiscoveryOptions(file=tmp_path)), FileSource)
    assert isinstance(discovery.source(DiscoveryOptions(dns="h:1")), DnsSource)
    assert isinstance(discovery.source(DiscoveryOptions(registry="http://h")), RegistrySource)


def test_only_a_new_list_is_a_change_and_a_failure_is_none() -> None:
    answers: list[Sequence[ServerOptions] | Exception] = [
        [ONE], DiscoveryError("away"), [], [ONE, TWO], [TWO, ONE], DiscoveryError("away"), [TWO],
    ]  # fmt: skip
    changes: list[list[str]] = []

    class Source:
        async def look(self) -> Sequence[ServerOptions]:
            if not answers:
                raise asyncio.CancelledError
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

    async def run() -> None:
        def note(servers: Sequence[ServerOptions]) -> None:
            changes.append([server.name for server in servers])

        await discovery.follow(Source(), 0.0, [ONE], note)

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(run())
    assert changes == [["a", "b"], ["b"]]

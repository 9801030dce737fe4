"""A client that does not read stops the model, and costs the gateway no memory."""

from __future__ import annotations

import json
import socket
import time
from typing import TYPE_CHECKING

import httpx
import psutil
import pytest

from tests.fakes.gateways import MODEL, running, write_repository

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fakes.token_server import TokenServer


@pytest.mark.integration
def test_a_slow_reader_stops_the_model_and_not_our_memory(server: TokenServer, tmp_path: Path) -> None:
    server.is_endless, server.tokens_per_response = True, 50
    repository = write_repository(tmp_path / "repository", max_seq_len=2_000_000, kv_cache_tokens=1_024_000)
    body = json.dumps({"model": MODEL, "prompt": "abc", "max_tokens": 1_000_000, "stream": True, "logprobs": 0})
    with running(repository, server.url, tmp_path / "log") as gateway:
        host, port = gateway.url.removeprefix("http://").split(":")
        assert httpx.get(f"{gateway.url}/health/ready").status_code == 200
        before = psutil.Process(gateway.pid).memory_info().rss
        with socket.create_connection((host, int(port))) as connection:
            head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
            connection.sendall((head + body).encode())
            sent = -1
            while sent != server.num_sent or not sent:
                sent = server.num_sent
                time.sleep(0.7)
            assert server.num_sent < 400_000
            assert not server.has_left.is_set()
            assert psutil.Process(gateway.pid).memory_info().rss - before < 16 * 2**20
        assert server.has_left.wait(5)

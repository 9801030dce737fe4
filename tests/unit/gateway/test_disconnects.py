"""Hundreds of clients that leave at random moments, before a server that works for whoever does not cancel."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from typing import TYPE_CHECKING

import pytest

from scripts.benchmarks import disconnects
from tests.fakes.gateways import MODEL, running, write_repository

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fakes.token_server import TokenServer

pytestmark = pytest.mark.integration
NUM_CLIENTS = 400
AT_ONCE = 48


@pytest.mark.parametrize(("workers", "upstream"), [(1, "http2"), (1, "grpc"), (2, "http2")])
def test_nothing_of_clients_that_left_stays(server: TokenServer, tmp_path: Path, workers: int, upstream: str) -> None:
    server.is_endless, server.step_s = True, 0.01
    crowd = [dataclasses.replace(client, stays_s=client.stays_s / 4) for client in disconnects.draw(7, NUM_CLIENTS)]
    options = ("--workers", str(workers), "--upstream", upstream)
    with running(write_repository(tmp_path / "repository"), server.url, tmp_path / "log", *options) as process:
        gateway = disconnects.Gateway(process.url, process.pid, int(server.url.rpartition(":")[2]))
        asyncio.run(disconnects.crowd(crowd, gateway, MODEL, AT_ONCE))
        disconnects.seconds_until_empty(gateway)
        time.sleep(1.5)
        before = gateway.state()
        seen = asyncio.run(disconnects.crowd(crowd, gateway, MODEL, AT_ONCE))
        assert disconnects.seconds_until_empty(gateway) < 20  # for ever, if nobody cancelled
        deadline = time.monotonic() + 20
        while len(server.events) < len(server.requests):
            assert time.monotonic() < deadline, "the server still works for somebody"
            time.sleep(0.01)
        # What is counted once a second (by each worker for itself) is counted anew.
        time.sleep(1.5)
        after = gateway.state()
    assert seen["HTTP/1.1 200 OK"] > 20  # the slower the machine, the more have left before
    assert set(server.events) == {"cancelled"}
    assert after.num_running == after.num_waiting == after.num_client_connections == 0
    assert after.num_server_connections <= 4 * workers
    assert after.num_tasks == before.num_tasks
    # A pool may not have opened all of its connections before; they are counted above.
    assert after.num_files - after.num_server_connections == before.num_files - before.num_server_connections
    # The allocator settles after a few crowds; what each leaves behind would be seen in the benchmark.
    assert after.anonymous_mib - before.anonymous_mib < 8

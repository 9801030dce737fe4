"""64 clients of 8 tenants at one gateway: limits, shares and the ledger, also after `kill -9`."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import httpx
import psutil
import pytest

from scalellm_trt.gateway import api_keys
from scalellm_trt.gateway.tenants import ledger_files
from scripts.benchmarks.sides.tenant_load import Ask, Load, shares
from tests.fakes.gateways import END_ID, MODEL, running, write_repository
from tests.fakes.token_server import TokenServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from scalellm_trt.gateway.tenants.ledger_files import Used
    from scripts.benchmarks.sides.tenant_load import Seen

pytestmark = pytest.mark.integration

WEIGHTS = {"w1": 1, "w2": 2, "w4": 4}
REQUESTS_PER_MINUTE, TOKENS_PER_MINUTE, URGENT_TOKENS_PER_MINUTE = 60, 1500, 6000
CONFIG = f"""\
keys: {{file: keys}}
ledger: {{directory: usage}}
limits: {{max_streams: 4}}
tenants:
  w1: {{weight: 1}}
  w2: {{weight: 2}}
  w4: {{weight: 4}}
  requests: {{priority: high, requests_per_minute: {REQUESTS_PER_MINUTE}}}
  tokens: {{tokens_per_minute: {TOKENS_PER_MINUTE}}}
  urgent: {{priority: high, tokens_per_minute: {URGENT_TOKENS_PER_MINUTE}}}
  one: {{priority: high, max_concurrent: 1}}
  low: {{priority: low}}
"""
NAMES = ("w1", "w2", "w4", "requests", "tokens", "urgent", "one", "low")
KEYS = {name: f"sk-{name}" for name in NAMES}
# The answer repeats the prompt and ends: some 40 tokens are used of some 84 that are reserved.
ASK = Ask(model=MODEL, word="x", prompt_words=(8, 30), fields={"max_tokens": 64})
BURSTS_S, MEASURED_S = 8.0, 20.0


@pytest.fixture(scope="module")
def server() -> Iterator[TokenServer]:
    """Four streams make 800 tokens a second: no processor is the limit."""
    server = TokenServer(MODEL, END_ID)
    server.step_s, server.tokens_per_response = 0.005, 4
    yield server
    server.close()


def _ledger(directory: Path) -> Mapping[str, Used]:
    sums = ledger_files.add_up(ledger_files.hours(directory / "usage").values())
    assert not sums.num_unreadable
    return {tenant: used for (tenant, _), used in sums.used.items()}


def _write(directory: Path, text: str) -> tuple[Path, str]:
    api_keys.write(directory / "keys", {name: api_keys.digest(key) for name, key in KEYS.items()})
    config = directory / "gateway.yaml"
    config.write_text(text)
    return write_repository(directory / "repository"), str(config)


def _told(seen: Seen) -> tuple[int, int, int]:
    return len(seen.ended), sum(prompt for _, prompt, _ in seen.ended), sum(answer for _, _, answer in seen.ended)


def _noted(used: Used) -> tuple[int, int, int]:
    return used.requests, used.prompt_tokens, used.completion_tokens


def test_limits_shares_and_ledger_hold_for_64_clients_and_after_a_kill(tmp_path: Path, server: TokenServer) -> None:
    repository, config = _write(tmp_path, CONFIG)
    with running(repository, server.url, tmp_path / "log", "--config", config, exit_code=-signal.SIGKILL) as gateway:
        load = Load(gateway.url, KEYS, ASK, clients_each=8)
        began_s = time.monotonic()

        async def play() -> None:
            clients = asyncio.create_task(load.run(BURSTS_S + MEASURED_S + 60))
            await asyncio.sleep(BURSTS_S + MEASURED_S)
            # All 64 ask while it dies.
            os.kill(gateway.pid, signal.SIGKILL)
            load.stop()
            await clients

        asyncio.run(play())
        ended_s = began_s + BURSTS_S + MEASURED_S
        seen = load.seen

    found = shares(seen, tuple(WEIGHTS), began_s + BURSTS_S, ended_s)
    for tenant, weight in WEIGHTS.items():
        assert found[tenant] == pytest.approx(weight / sum(WEIGHTS.values()), rel=0.05), found
    minutes = 1 + (ended_s - began_s) / 60
    assert len(seen["requests"].ended) == pytest.approx(REQUESTS_PER_MINUTE * minutes, rel=0.05)
    # On a machine that is too busy to give it all, it has what its weight gives it, as w1 has.
    least = min(TOKENS_PER_MINUTE * minutes, seen["w1"].tokens())
    assert 0.95 * least <= seen["tokens"].tokens() <= 1.05 * TOKENS_PER_MINUTE * minutes
    assert seen["urgent"].tokens() == pytest.approx(URGENT_TOKENS_PER_MINUTE * minutes, rel=0.05)
    for tenant in ("requests", "tokens", "urgent", "one"):
        assert seen[tenant].statuses[429] > 10
    for tenant in (*WEIGHTS, "low"):
        assert set(seen[tenant].statuses) == {200}
    window = (began_s + BURSTS_S, ended_s)
    low, higher = seen["low"].tokens(*window), sum(seen[name].tokens(*window) for name in NAMES if name != "low")
    assert low / higher == pytest.approx(1 / 20, rel=0.15)

    noted = _ledger(tmp_path)
    for tenant in NAMES:
        # What was on record and not yet told when the gateway was killed: no more than was being answered.
        more = [here - there for here, there in zip(_noted(noted[tenant]), _told(seen[tenant]), strict=True)]
        assert 0 <= more[0] <= 4, tenant
        assert min(more) >= 0
        assert (more[0] == 0) == (more == [0, 0, 0])

    with running(repository, server.url, tmp_path / "log2", "--config", config) as gateway:
        load = Load(gateway.url, KEYS, ASK, clients_each=8, seed=1)
        asyncio.run(load.run(3))
    after = _ledger(tmp_path)
    for tenant in NAMES:
        more = [here - there for here, there in zip(_noted(after[tenant]), _noted(noted[tenant]), strict=True)]
        assert tuple(more) == _told(load.seen[tenant]), tenant


def test_limits_hold_over_workers_and_a_killed_one_takes_no_place_with_it(tmp_path: Path, server: TokenServer) -> None:
    config_text = "keys: {file: keys}\ntenants:\n  requests: {requests_per_minute: 20}\n  one: {max_concurrent: 2}\n"
    repository, config = _write(tmp_path, config_text)
    options = ("--config", config, "--workers", "2")
    with running(repository, server.url, tmp_path / "log", *options) as gateway:

        def ask(tenant: str, max_tokens: int = 1) -> int:
            headers = {"authorization": f"Bearer {KEYS[tenant]}"}
            body = {"model": MODEL, "prompt": "x", "max_tokens": max_tokens}
            try:
                answer = httpx.post(f"{gateway.url}/v1/completions", json=body, headers=headers, timeout=20)
            except httpx.TransportError:
                return 0
            return answer.status_code

        def until(condition: Callable[[], bool]) -> None:
            deadline_s = time.monotonic() + 15
            while not condition():
                assert time.monotonic() < deadline_s
                time.sleep(0.05)

        began_s = time.monotonic()
        with ThreadPoolExecutor(8) as clients:
            statuses = list(clients.map(lambda _: ask("requests"), range(60)))
        refilled = (time.monotonic() - began_s) / 3
        assert 20 <= statuses.count(200) <= 20 + refilled
        assert set(statuses) == {200, 429}

        with ThreadPoolExecutor(2) as clients:
            server.is_endless, num_before = True, len(server.requests)
            long_ones = [clients.submit(ask, "one", 1000) for _ in range(2)]
            until(lambda: len(server.requests) == num_before + 2)
            assert ask("one") == 429
            for worker in psutil.Process(gateway.pid).children():
                worker.kill()
            assert [each.result() for each in long_ones] == [0, 0]
            server.is_endless = False
            until(lambda: ask("one") == 200)

"""Clients of several tenants, each with one request after the other, and what they were told that they have used."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

RETRY_S = 0.25
"""A refused client comes again so soon, whatever it was told: it wants all that it can get."""
TIMEOUT_S = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What clients ask for.

    Attributes:
        prompt_words: the least and the most words of a prompt.
        fields: more of the request.
    """

    model: str
    word: str
    prompt_words: tuple[int, int]
    fields: Mapping[str, object]


@dataclass(slots=True)
class Seen:
    """What the clients of a tenant saw.

    Attributes:
        ended: (when, tokens of prompt, tokens of answer) of each whole answer; seconds of the monotonic clock.
        statuses: of all answers.
        headers: of the last one.
    """

    ended: list[tuple[float, int, int]] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    headers: Mapping[str, str] = field(default_factory=dict)

    def tokens(self, since_s: float = 0.0, until_s: float = float("inf")) -> int:
        """Return the tokens of answers that ended in that time."""
        return sum(prompt + answer for when_s, prompt, answer in self.ended if since_s <= when_s < until_s)


class Load:
    """All clients."""

    def __init__(self, url: str, keys: Mapping[str, str], ask: Ask, *, clients_each: int, seed: int = 0) -> None:
        """Prepare `clients_each` clients for each tenant, whose key is `keys[tenant]`."""
        self._url, self._keys, self._ask = url, keys, ask
        self._clients_each, self._random = clients_each, random.Random(seed)
        self._is_over = False
        self.seen = {tenant: Seen() for tenant in keys}

    async def run(self, seconds: float) -> None:
        """Ask for so long; every request is waited for. What the gateway's end cuts off is not seen."""
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        async with httpx.AsyncClient(base_url=self._url, timeout=TIMEOUT_S, limits=limits) as http:
            tenants = [tenant for tenant in self._keys for _ in range(self._clients_each)]
            self._random.shuffle(tenants)
            clients = [asyncio.create_task(self._client(http, tenant)) for tenant in tenants]
            until_s = time.monotonic() + seconds
            while time.monotonic() < until_s and not self._is_over:
                await asyncio.sleep(0.02)
            self._is_over = True
            await asyncio.gather(*clients)

    def stop(self) -> None:
        """Let no client ask again."""
        self._is_over = True

    async def _client(self, http: httpx.AsyncClient, tenant: str) -> None:
        seen = self.seen[tenant]
        while not self._is_over:
            try:
                status = await self._one(http, tenant, seen)
            except httpx.TransportError:
                return
            seen.statuses[status] += 1
            if status != 200:
                await asyncio.sleep(RETRY_S)

    async def _one(self, http: httpx.AsyncClient, tenant: str, seen: Seen) -> int:
        chance, ask = self._random, self._ask
        is_stream = chance.random() < 0.5
        body: dict[str, Any] = {"model": ask.model, "prompt": ask.word * chance.randint(*ask.prompt_words)}
        body |= {**ask.fields, "stream": is_stream, "seed": chance.randrange(2**31)}
        body |= {"stream_options": {"include_usage": True}} if is_stream else {}
        headers = {"authorization": f"Bearer {self._keys[tenant]}"}
        answer = await http.post("/v1/completions", json=body, headers=headers)
        seen.headers = answer.headers
        if answer.status_code == 200:
            usage = json.loads(answer.text.split("data: ")[-2])["usage"] if is_stream else answer.json()["usage"]
            seen.ended.append((time.monotonic(), usage["prompt_tokens"], usage["completion_tokens"]))
        return answer.status_code


def shares(seen: Mapping[str, Seen], tenants: Sequence[str], since_s: float, until_s: float) -> dict[str, float]:
    """Return each tenant's part of the tokens of all `tenants` in a time."""
    tokens = {tenant: seen[tenant].tokens(since_s, until_s) for tenant in tenants}
    return {tenant: count / sum(tokens.values()) for tenant, count in tokens.items()}

"""What a tenant may still take: requests and tokens of each minute, requests at once; over all workers together."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from scalellm_trt.gateway.tenants.bucket import Bucket

if TYPE_CHECKING:
    from collections.abc import Callable

    from scalellm_trt.gateway.tenants.shared_cells import Row
    from scalellm_trt.gateway.tenants.tenant import Tenant

Reason = Literal["requests", "tokens", "concurrency"]
RETRY_S: Final = 1.0
"""When to come again where nobody knows when a request will end."""
_REQUESTS, _TOKENS = 0, 1


class RefusedError(Exception):
    """The tenant has had what it may have.

    Attributes:
        reason: which limit it is.
        wait_s: when it may have it; infinite for never.
    """

    def __init__(self, reason: Reason, wait_s: float) -> None:
        """Take why and how long."""
        super().__init__(reason)
        self.reason, self.wait_s = reason, wait_s


@dataclass(slots=True)
class Levels:
    """What a tenant's buckets held when its request had been counted; None where there is no such limit."""

    requests: float | None = None
    tokens: float | None = None


class Quota:
    """The limits of one tenant, as one worker keeps them."""

    def __init__(self, tenant: Tenant, row: Row, clock: Callable[[], float] = time.monotonic) -> None:
        """Keep them in `row`; `clock` returns seconds, the same ones in every worker."""
        self._row, self._clock, self._max_open = row, clock, tenant.max_concurrent
        self._requests = None if tenant.requests_per_minute is None else Bucket(tenant.requests_per_minute)
        self._tokens = None if tenant.tokens_per_minute is None else Bucket(tenant.tokens_per_minute)
        self._is_limited = tenant.is_limited

    def fill(self) -> None:
        """Let the buckets be full: once, before a worker has the tenant.

        What is not limited is full too, whatever limit comes later: a level is never above its bucket's size.
        """
        now_s = self._clock()
        for number in (_REQUESTS, _TOKENS):
            self._row.write(number, float("inf"), now_s)

    def enter(self, levels: Levels) -> None:
        """Take one request; `leave` gives its place back, however it ends.

        Raises:
            RefusedError: there is none left, or too many are open; nothing is taken then.
        """
        if not self._is_limited:
            return
        with self._row:
            now_s = self._clock()
            levels.requests, levels.tokens = self._level(_REQUESTS, now_s), self._level(_TOKENS, now_s)
            if self._max_open is not None and self._row.num_open() >= self._max_open:
                raise RefusedError("concurrency", RETRY_S)
            if self._requests is not None and levels.requests is not None:
                if levels.requests < 1:
                    raise RefusedError("requests", self._requests.wait_s(levels.requests, 1))
                levels.requests -= 1
                self._row.write(_REQUESTS, levels.requests, now_s)
            self._row.add_open(1)

    def reserve(self, num_tokens: int, levels: Levels) -> None:
        """Take the most that a request can use.

        Raises:
            RefusedError: they are not there; nothing is taken then.
        """
        if self._tokens is None:
            return
        with self._row:
            now_s = self._clock()
            level = levels.tokens = self._level(_TOKENS, now_s) or 0.0
            if level < num_tokens:
                raise RefusedError("tokens", self._tokens.wait_s(level, num_tokens))
            levels.tokens = level - num_tokens
            self._row.write(_TOKENS, levels.tokens, now_s)

    def leave(self, num_unused_tokens: int) -> None:
        """End a request that was let in, and give back what it had reserved and has not used."""
        if not self._is_limited:
            return
        with self._row:
            self._row.add_open(-1)
            if self._tokens is not None and num_unused_tokens:
                now_s = self._clock()
                level = (self._level(_TOKENS, now_s) or 0.0) + num_unused_tokens
                self._row.write(_TOKENS, min(level, float(self._tokens.per_minute)), now_s)

    def headers(self, levels: Levels) -> list[tuple[bytes, bytes]]:
        """Return OpenAI's `x-ratelimit` headers: limits, what is left of them, when they are whole again."""
        found = []
        for kind, bucket, level in self._known(levels):
            if bucket is not None and level is not None:
                found.append((b"x-ratelimit-limit-" + kind, b"%d" % bucket.per_minute))
                found.append((b"x-ratelimit-remaining-" + kind, b"%d" % level))
                found.append((b"x-ratelimit-reset-" + kind, b"%.3fs" % bucket.wait_s(level, bucket.per_minute)))
        return found

    def _known(self, levels: Levels) -> tuple[tuple[bytes, Bucket | None, float | None], ...]:
        return (b"requests", self._requests, levels.requests), (b"tokens", self._tokens, levels.tokens)

    def _level(self, number: int, now_s: float) -> float | None:
        bucket = self._requests if number == _REQUESTS else self._tokens
        if bucket is None:
            return None
        level, then_s = self._row.read(number)
        return bucket.level(level, now_s - then_s)

"""One request of a tenant: let in or refused, what it used put on record before its client is told."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from scalellm_trt.gateway.errors import ApiError
from scalellm_trt.gateway.replies import Usage
from scalellm_trt.gateway.tenants.fair_queue import Turn
from scalellm_trt.gateway.tenants.quota import Levels, RefusedError

if TYPE_CHECKING:
    from scalellm_trt.gateway.request_log import RequestRecord
    from scalellm_trt.gateway.tenants.account import Account

_FIELDS: Final = {
    "requests": ("requests_per_minute", "requests a minute"),
    "tokens": ("tokens_per_minute", "tokens a minute"),
    "concurrency": ("max_concurrent", "requests at once"),
}


class Visit:
    """A context: what the tenant took for the request is given back at its end."""

    def __init__(self, account: Account, record: RequestRecord) -> None:
        """Begin; nothing is taken yet."""
        self._account, self._record = account, record
        self._levels = Levels()
        self._num_reserved = 0
        self._usage: Usage | None = None
        self._turns: list[Turn] = []

    def __enter__(self) -> None:
        """Take a request of the tenant's quota.

        Raises:
            ApiError: 429, there is none left.
        """
        self._record.visit, self._record.tenant = self, self._account.tenant.name
        try:
            self._account.quota.enter(self._levels)
        except RefusedError as error:
            raise self._refusal(error) from error

    def __exit__(self, *ignored: object) -> None:
        """Settle: what was reserved and not used is the tenant's again."""
        record = self._record
        if self._usage is None and record.prompt_tokens is not None:
            self.note(
                Usage(
                    prompt_tokens=record.prompt_tokens,
                    completion_tokens=record.completion_tokens or 0,
                    cached_tokens=record.cached_tokens,
                )
            )
        used = 0 if self._usage is None else self._usage.prompt_tokens + self._usage.completion_tokens
        self._account.quota.leave(self._num_reserved - used if self._num_reserved else 0)
        for turn in self._turns:
            if turn.counted_tokens:
                self._account.queue.settle(turn, used * turn.num_tokens / self._num_reserved)

    def reserve(self, num_tokens: int) -> None:
        """Take the most tokens that the request can use.

        Raises:
            ApiError: 429, they are not left.
        """
        try:
            self._account.quota.reserve(num_tokens, self._levels)
        except RefusedError as error:
            raise self._refusal(error, num_tokens) from error
        self._num_reserved = num_tokens

    def turn(self, num_tokens: int) -> Turn:
        """Return what a generation that can use `num_tokens` waits with."""
        turn = Turn(flow=self._account.flow, num_tokens=num_tokens)
        self._turns.append(turn)
        return turn

    def note(self, usage: Usage) -> None:
        """Put on record what the request used: once, before its client sees the end of its answer."""
        if self._usage is None:
            self._usage = usage
            self._account.note(self._record.model or "", usage)

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Return the headers that say what is left of the tenant's limits."""
        return self._account.quota.headers(self._levels)

    def _refusal(self, error: RefusedError, num_wanted: int = 1) -> ApiError:
        self._account.count_refused(error.reason)
        key, words = _FIELDS[error.reason]
        limit = getattr(self._account.tenant, key)
        if math.isinf(error.wait_s):
            message = f"the request may use {num_wanted} tokens, and this tenant has {limit} {words}; ask for fewer"
            # No wait helps: OpenAI's clients would come again.
            never = {"x-should-retry": "false"}
            return ApiError(429, message, code="request_too_large", headers=never)
        seconds = max(1, math.ceil(error.wait_s))
        message = f"this tenant has {limit} {words}; try again in {seconds} s"
        return ApiError(429, message, code="rate_limit_exceeded", headers={"retry-after": str(seconds)})

"""A cell's jobs, made ahead of the time at which they are needed: making a prompt takes longer than sending it."""

from __future__ import annotations

import hashlib
import uuid
from typing import TYPE_CHECKING

from scalellm_trt.bench.load.exchange import Job
from scalellm_trt.bench.question import Question

if TYPE_CHECKING:
    from scalellm_trt.bench.tokens import ServedTokenizer
    from scalellm_trt.bench.workload import Workload

WARMUP_NUMBER = 1_000_000
"""Where the conversations of warm-ups begin: none of them is measured later."""


class JobSource:
    """Makes jobs."""

    def __init__(self, workload: Workload, tokenizer: ServedTokenizer, *, cell: int, prefix: str) -> None:
        """Take what is asked; `prefix` begins the ids of the requests."""
        self._workload, self._tokenizer, self._cell, self._prefix = workload, tokenizer, cell, prefix

    def job(self, index: int, *, is_warmup: bool, due_s: float | None = None) -> Job:
        """Return the job with this number."""
        number = index + (WARMUP_NUMBER if is_warmup else 0)
        conversation = self._workload.conversation(number, self._cell)
        first = conversation.turns[0]
        text = self._tokenizer.render(first.messages)
        question = Question(
            messages=first.messages, text=text, ids=self._tokenizer.encode(text), max_tokens=first.max_tokens
        )
        return Job(
            index=index,
            request_id=self.request_id(index, is_warmup=is_warmup),
            conversation=conversation,
            first=question,
            due_s=due_s,
            is_warmup=is_warmup,
        )

    def request_id(self, index: int, *, is_warmup: bool) -> str:
        """Return what a request is called on its way, of a conversation the first."""
        return _uuid(f"{self._prefix}-{self._cell}-{'w' if is_warmup else ''}{index}")


def id_of_turn(first: str, turn: int) -> str:
    """Return what a turn of a conversation is called whose first one is called `first`."""
    return _uuid(f"{first}-{turn}") if turn else first


def _uuid(text: str) -> str:
    """Return a UUID of version 4, the only form that every server takes as X-Request-ID."""
    return str(uuid.UUID(bytes=hashlib.sha256(text.encode()).digest()[:16], version=4))

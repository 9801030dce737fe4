"""One request with several prompts: each is a job of its own at the engine; their answers come together, in order."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from scalellm_trt.gateway import whole_answer
from scalellm_trt.gateway.replies import Usage
from scalellm_trt.gateway.running import Running

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from scalellm_trt.gateway.answer_text import Delta
    from scalellm_trt.gateway.fleet.work import Servers
    from scalellm_trt.gateway.jobs import Job
    from scalellm_trt.gateway.metrics import Metrics
    from scalellm_trt.gateway.request_log import RequestRecord

    Work = Callable[[], Coroutine[Any, Any, list[Delta]]]


class Several:
    """The jobs of several prompts; answer i of prompt p has the number p * n + i. They come whole, not as a stream."""

    def __init__(self, job: Job, metrics: Metrics, record: RequestRecord) -> None:
        """Prepare to run every prompt of `job`; nothing is sent yet.

        Raises:
            ApiError: the model can never serve one of them.
        """
        self._record = record
        self._jobs = job.of_each_prompt()
        self._records = [replace(record) for _ in self._jobs]
        self._parts = [Running(each, metrics, own) for each, own in zip(self._jobs, self._records, strict=True)]

    @property
    def usage(self) -> Usage:
        """Tokens so far, of all prompts."""
        usages = [part.usage for part in self._parts]
        cached = [usage.cached_tokens for usage in usages if usage.cached_tokens is not None]
        return Usage(
            prompt_tokens=sum(usage.prompt_tokens for usage in usages),
            completion_tokens=sum(usage.completion_tokens for usage in usages),
            cached_tokens=sum(cached) if cached else None,
        )

    async def whole(
        self, servers: Servers, admitted: Callable[[Job, Work], Coroutine[Any, Any, list[Delta]]]
    ) -> list[Delta]:
        """Return every answer when all are complete; when one fails, the others are cancelled.

        Args:
            servers: who can be given the work.
            admitted: does a job once there is a place for it.

        Raises:
            ApiError: the server does not answer, or refuses one of them.
        """
        tasks = [
            asyncio.ensure_future(admitted(job, partial(whole_answer.take, part, servers)))
            for job, part in zip(self._jobs, self._parts, strict=True)
        ]
        try:
            answers = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._note()
        return [answer for several in answers for answer in several]

    def note_cancelled(self) -> None:
        """Count a client that left."""
        for part in self._parts:
            part.note_cancelled()
        self._record.is_cancelled = True

    def _note(self) -> None:
        """Write into the request's record what the records of its prompts hold."""
        usage, record = self.usage, self._record
        record.prompt_tokens, record.completion_tokens = usage.prompt_tokens, usage.completion_tokens
        record.cached_tokens = usage.cached_tokens
        record.finish_reasons = [reason for own in self._records for reason in own.finish_reasons or ()]

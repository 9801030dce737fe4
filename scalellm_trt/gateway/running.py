"""One job at the engine: its tokens as text, counted in metrics and in the request's record however it ends."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

from scalellm_trt.gateway.answer_text import AnswerText, Delta
from scalellm_trt.gateway.errors import ApiError
from scalellm_trt.gateway.replies import Usage

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from scalellm_trt.gateway.jobs import Job
    from scalellm_trt.gateway.metrics import Metrics
    from scalellm_trt.gateway.request_log import RequestRecord
    from scalellm_trt.gateway.upstream import Upstream


class Running:
    """A job from its first token to its last."""

    def __init__(self, job: Job, upstream: Upstream, metrics: Metrics, record: RequestRecord) -> None:
        """Prepare to run `job`; nothing is sent yet."""
        self._job, self._upstream, self._metrics, self._record = job, upstream, metrics, record
        settings, generation = job.model.settings, job.generation
        # Without an end token nothing of the answer is hidden.
        hidden_ids = frozenset() if generation.ignore_eos else frozenset(settings.eos_token_ids)
        self._answers = [
            AnswerText(job.model.tokenizer.token_bytes, generation.stop, hidden_ids, generation.min_tokens or 0)
            for _ in range(generation.num_sequences)
        ]

    @property
    def usage(self) -> Usage:
        """Tokens so far."""
        num_tokens = sum(answer.num_tokens for answer in self._answers)
        return Usage(prompt_tokens=len(self._job.generation.input_ids), completion_tokens=num_tokens)

    async def deltas(self) -> AsyncGenerator[tuple[int, Delta], None]:
        """Yield what is new of each answer; closing the iterator cancels the job.

        Raises:
            ApiError: the server does not answer, or refuses.
        """
        model = self._job.model.name
        self._metrics.running.labels(model).inc()
        self._metrics.prompt_tokens.labels(model).inc(len(self._job.generation.input_ids))
        try:
            async with aclosing(self._upstream.generate(self._job.generation)) as chunks:
                async for chunk in chunks:
                    answer = self._answers[chunk.index]
                    if answer.finish_reason is not None:
                        continue
                    delta = answer.take(chunk)
                    if delta.text or delta.tokens or delta.finish_reason:
                        self._note_first_text(delta)
                        yield chunk.index, delta
            if any(answer.finish_reason is None for answer in self._answers):
                raise ApiError(500, "the model ended without saying why")
            self._note_end()
        finally:
            self._metrics.running.labels(model).dec()
            self._metrics.generation_tokens.labels(model).inc(self.usage.completion_tokens)
            self._record.prompt_tokens = self.usage.prompt_tokens
            self._record.completion_tokens = self.usage.completion_tokens

    async def whole(self) -> list[Delta]:
        """Return every answer when all are complete; see `deltas`."""
        parts: list[list[Delta]] = [[] for _ in self._answers]
        async with aclosing(self.deltas()) as deltas:
            async for index, delta in deltas:
                parts[index].append(delta)
        return [
            Delta(
                text="".join(delta.text for delta in deltas),
                tokens=tuple(token for delta in deltas for token in delta.tokens),
                finish_reason=deltas[-1].finish_reason,
            )
            for deltas in parts
        ]

    def note_cancelled(self) -> None:
        """Count a client that left."""
        self._metrics.cancelled.labels(self._job.model.name).inc()
        self._metrics.cancelled_tokens.labels(self._job.model.name).inc(self.usage.completion_tokens)
        self._record.is_cancelled = True

    def _note_first_text(self, delta: Delta) -> None:
        if self._record.ttft_ms is None and self._job.stream and delta.text:
            ttft_s = self._record.elapsed_s()
            self._record.ttft_ms = round(ttft_s * 1000, 3)
            self._metrics.ttft.labels(self._job.model.name).observe(ttft_s)

    def _note_end(self) -> None:
        model, e2e_s = self._job.model.name, self._record.elapsed_s()
        self._metrics.e2e.labels(model).observe(e2e_s)
        reasons = [answer.finish_reason or "" for answer in self._answers]
        for reason in reasons:
            self._metrics.success.labels(model, reason).inc()
        self._record.finish_reasons = reasons
        num_tokens, ttft_ms = self.usage.completion_tokens, self._record.ttft_ms
        if ttft_ms is not None and len(reasons) == 1 and num_tokens > 1:
            self._metrics.tpot.labels(model).observe((e2e_s - ttft_ms / 1000) / (num_tokens - 1))

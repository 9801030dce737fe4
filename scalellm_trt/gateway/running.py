"""One job at the engine: its messages as text, counted in metrics and in the request's record however it ends."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from scalellm_trt.gateway.answer_text import AnswerText, Delta
from scalellm_trt.gateway.errors import ApiError
from scalellm_trt.gateway.replies import Usage
from scalellm_trt.gateway.ui.pace import Pace

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from scalellm_trt.gateway.contract import TokenChunk
    from scalellm_trt.gateway.fleet.work import Servers
    from scalellm_trt.gateway.jobs import Job
    from scalellm_trt.gateway.metrics import Metrics
    from scalellm_trt.gateway.request_log import RequestRecord
    from scalellm_trt.gateway.upstream import Listener, Message, PlacedCall


class Running:
    """A job from its first token to its last, over one server or several; the fleet's `Work`.

    Attributes:
        is_complete: every answer has ended and the server has said that nothing follows.
        failure: why nothing follows though an answer has not ended.
        is_plain: the one answer needs nothing of a token but its text; `take_tokens` may be used.
        last_token: the id in what was last taken, if that was one token and nothing else.
    """

    def __init__(self, job: Job, metrics: Metrics, record: RequestRecord) -> None:
        """Prepare to run `job`; nothing is sent yet.

        Raises:
            ApiError: the model can never serve it.
        """
        self._job, self._metrics, self._record = job, metrics, record
        settings, generation = job.model.settings, job.generation
        # Without an end token nothing of the answer is hidden.
        hidden_ids = frozenset() if generation.ignore_eos else frozenset(settings.eos_token_ids)
        self._answers = [
            AnswerText(job.model.tokenizer.token_bytes, generation.stop, hidden_ids, generation.min_tokens or 0)
            for _ in range(generation.num_sequences)
        ]
        self._asked = job.model.ask(generation)
        self._made: list[int] = []  # of the first sequence, for another server to go on
        self._has_continued = False
        self._is_over = False
        self._num_reused_blocks: int | None = None
        self._pace = Pace(metrics.live, is_stream=job.stream and len(self._answers) == 1)
        self._num_new = 0
        self._call: PlacedCall | None = None
        self.is_complete = False
        self.failure: ApiError | None = None
        self.is_plain = len(self._answers) == 1 and not generation.stop and not generation.has_log_probs
        self.last_token: int | None = None

    @property
    def usage(self) -> Usage:
        """Tokens so far."""
        return Usage(
            prompt_tokens=len(self._job.generation.input_ids),
            completion_tokens=sum(answer.num_tokens for answer in self._answers),
            cached_tokens=self._cached_tokens(),
        )

    @contextmanager
    def counted(self) -> Generator[None, None, None]:
        """Count the job while the block runs; what has not ended at its end is cancelled on the server."""
        model = self._job.model.name
        self._metrics.running.labels(model).inc()
        self._metrics.prompt_tokens.labels(model).inc(len(self._job.generation.input_ids))
        self._metrics.live.begin(len(self._job.generation.input_ids))
        try:
            yield
        finally:
            # Triton 2.51 never forgets a request that is cancelled after it ended.
            if self._call is not None and not self._is_over:
                self._call.cancel()
            self._record.server = None if self._call is None else self._call.server_url
            if self._record.trace is not None:
                self._record.trace.end_call(self._record.server)
            self._metrics.running.labels(model).dec()
            self._metrics.live.end()
            self._metrics.generation_tokens.labels(model).inc(self.usage.completion_tokens)
            self._record.prompt_tokens = self.usage.prompt_tokens
            self._record.completion_tokens = self.usage.completion_tokens
            self._note_cached()

    @property
    def model(self) -> str:
        """See `Work`: the model that is asked, which may be the engine's own."""
        name: str = self._asked.request.model_name
        return name

    @property
    def input_ids(self) -> Sequence[int]:
        """See `Work`."""
        return self._job.generation.input_ids

    @property
    def num_tokens(self) -> int:
        """See `Work`."""
        generation = self._job.generation
        return len(generation.input_ids) + generation.max_tokens * generation.num_sequences

    @property
    def has_begun(self) -> bool:
        """See `Work`."""
        return any(answer.num_tokens for answer in self._answers)

    @property
    def is_done(self) -> bool:
        """See `Work`."""
        return all(answer.finish_reason for answer in self._answers)

    @property
    def is_sampled(self) -> bool:
        """See `Work`."""
        return self._job.generation.temperature != 0 and self._job.generation.top_k != 1

    def why_not_continued(self) -> str | None:
        """See `Work`."""
        generation = self._job.generation
        if generation.num_sequences > 1:
            return "it has several answers"
        if generation.presence_penalty or generation.frequency_penalty or generation.guide is not None:
            return "its penalties or its grammar count from the first token"
        return None

    def request(self) -> Message:
        """See `Work`."""
        if not self._made:
            return self._asked.request
        generation, made = self._job.generation, self._made
        rest = replace(
            generation,
            input_ids=[*generation.input_ids, *made],
            max_tokens=generation.max_tokens - len(made),
            min_tokens=None if generation.min_tokens is None else max(0, generation.min_tokens - len(made)),
        )
        self._asked, self._has_continued = self._job.model.ask(rest), True
        self._record.num_continued = (self._record.num_continued or 0) + 1
        return self._asked.request

    def refusal(self, message: str) -> ApiError:
        """See `Work`."""
        return self._asked.answer.refusal(message)

    async def start(self, servers: Servers, listener: Listener) -> PlacedCall:
        """Send the request; `listener` passes on to `take` and `end` what comes.

        Raises:
            ApiError: no server answers.
        """
        trace = self._record.trace
        metadata = () if trace is None else trace.begin_call(self._job.model.name)
        try:
            self._call = await servers.start(self, listener, metadata)
        except ApiError as error:
            self._note_server_error(error)
            raise
        return self._call

    def take(self, messages: Sequence[Message]) -> dict[int, Delta]:
        """Return what messages that came together add to each answer; sets `is_complete` or `failure` at the end."""
        found: dict[int, Delta] = {}
        self._num_new = 0
        answer = self._asked.answer
        for message in messages:
            if message.error_message:
                self._is_over, self.failure = True, answer.refusal(message.error_message)
                break
            response = message.infer_response
            self._add(answer.take(response), found)
            if response.parameters["triton_final_response"].bool_param:
                self._is_over = True
                self._add(answer.finish(), found)
        self._pace.note(self._num_new)
        if found and self._record.ttft_ms is None and self._job.stream:
            self._note_first_text(found)
        if self.failure is None and (self._is_over or self._goes_on_in_vain()):
            self._complete()
        if self.failure is not None:
            self._note_server_error(self.failure)
        return found

    def take_tokens(self, token_ids: Sequence[int]) -> str | None:
        """Return the text of tokens that came with nothing else; see `is_plain`. None: `take` their messages."""
        if not self._asked.answer.pass_by(token_ids):
            return None
        self._made += token_ids
        self._pace.note(len(token_ids))
        return self._answers[0].take_plain(token_ids)

    def end(self, error: ApiError | None) -> ApiError | None:
        """Take the end of the call; return what is wrong with it, if something is.

        A server that broke after the last token, before it could say so, has done its work: sets `is_complete`.
        """
        if error is None and not self._is_over:
            error = ApiError(500, "the model's server ended the answer before it was complete")
        if error is not None and not self.is_complete:
            self._note_server_error(error)
        self._is_over = True
        if error is not None and not self.is_complete and self.is_done:
            self._complete()
            return None
        return error

    def note_cancelled(self) -> None:
        """Count a client that left."""
        self._metrics.cancelled.labels(self._job.model.name).inc()
        self._metrics.live.cancelled += 1
        self._metrics.cancelled_tokens.labels(self._job.model.name).inc(self.usage.completion_tokens)
        self._record.is_cancelled = True

    def note_told(self) -> None:
        """Put the usage on the tenant's record: before the client sees the end of its answer."""
        if self._record.visit is not None:
            self._record.visit.note(self.usage)

    def note_failed(self, error: ApiError) -> None:
        """Count an error that came too late for the request's status."""
        self._record.error = error.message
        self._metrics.note_failure(error.status)

    def _add(self, chunks: Sequence[TokenChunk], found: dict[int, Delta]) -> None:
        self.last_token = None
        for chunk in chunks:
            if len(chunk.token_ids) == 1 == len(chunks) and chunk.finish_reason is None:
                self.last_token = chunk.token_ids[0]
            self._num_new += len(chunk.token_ids)
            if self._num_reused_blocks is None:
                self._num_reused_blocks = chunk.num_reused_blocks
            self._made += chunk.token_ids if chunk.index == 0 else ()
            answer = self._answers[chunk.index]
            if answer.finish_reason is None:
                delta = answer.take(chunk)
                if delta.text or delta.tokens or delta.finish_reason:
                    before = found.get(chunk.index)
                    found[chunk.index] = delta if before is None else before.then(delta)

    def _note_server_error(self, error: ApiError) -> None:
        """Remember what the server did wrong; what a request did wrong is not its fault."""
        if error.status >= 500:
            self._metrics.live.note_server_error(error.message)

    def _cached_tokens(self) -> int | None:
        """Return the prompt's tokens in the pages that the engine had; the last one is always computed."""
        if self._num_reused_blocks is None:
            return None
        num_tokens = self._num_reused_blocks * self._job.model.settings.tokens_per_block
        return min(num_tokens, len(self._job.generation.input_ids) - 1)

    def _note_cached(self) -> None:
        num_tokens = self._cached_tokens()
        if num_tokens is not None:
            self._record.cached_tokens = num_tokens
            self._metrics.cached_tokens.labels(self._job.model.name).inc(num_tokens)
            self._metrics.live.note_cached(num_tokens, len(self._job.generation.input_ids))

    def _goes_on_in_vain(self) -> bool:
        """Return whether the model does not know that every answer has ended."""
        is_told = self._asked.answer.knows_stop_texts and not self._has_continued
        return not is_told and self.is_done

    def _note_first_text(self, found: dict[int, Delta]) -> None:
        if any(delta.text for delta in found.values()):
            ttft_s = self._record.elapsed_s()
            self._record.ttft_ms = round(ttft_s * 1000, 3)
            self._metrics.ttft.labels(self._job.model.name).observe(ttft_s)
            self._metrics.live.note_ttft(ttft_s)

    def _complete(self) -> None:
        if any(answer.finish_reason is None for answer in self._answers):
            self.failure = ApiError(500, "the model ended without saying why")
            return
        self.is_complete = True
        model, e2e_s = self._job.model.name, self._record.elapsed_s()
        self._metrics.e2e.labels(model).observe(e2e_s)
        reasons = [answer.finish_reason or "" for answer in self._answers]
        for reason in reasons:
            self._metrics.success.labels(model, reason).inc()
        self._record.finish_reasons = reasons
        num_tokens, ttft_ms = self.usage.completion_tokens, self._record.ttft_ms
        if ttft_ms is not None and len(reasons) == 1 and num_tokens > 1:
            self._metrics.tpot.labels(model).observe((e2e_s - ttft_ms / 1000) / (num_tokens - 1))

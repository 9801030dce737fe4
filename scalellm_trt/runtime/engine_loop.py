"""In-flight batching over a pipeline that is stepped by hand: one thread, one queue, one place for every decision.

Each turn of the loop: apply cancellations, start waiting requests whose KV pages are free, begin a step, deliver what
the step before has made while this one is computed, end the step. Requests wait here, in order, and not inside the
pipeline: so a cancelled or refused one never costs a step, and a full KV cache never breaks a running one.
"""

from __future__ import annotations

import secrets
import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from . import admission
from .engine_api import Chunk, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from .engine_api import FinishReason, GenerateRequest, SamplingParams, Sink
    from .settings import ServiceSettings

_GOLDEN_RATIO = 0x9E3779B97F4A7C15  # of 2**64


class PipelineSequence(Protocol):
    """One sequence inside the pipeline."""

    @property
    def num_reused_blocks(self) -> int:
        """KV pages with a part of its prompt that it found when it began."""
        ...

    def read(self) -> tuple[Sequence[int], Sequence[float], FinishReason | None]:
        """Return what came since the last call: ids, their log probabilities, and why it ended ("error": lost)."""
        ...

    def cancel(self) -> None:
        """Give place and pages up; between two steps only."""
        ...


class Pipeline(Protocol):
    """What steps all sequences at once. Used from one thread."""

    def add(self, input_ids: Sequence[int], sampling: SamplingParams, seed: int) -> PipelineSequence:
        """Take a prompt; the next step may already work on it."""
        ...

    def start_step(self) -> None:
        """Begin to process one batch of tokens; nothing to do is no error. After an exception it is thrown away."""
        ...

    def finish_step(self) -> None:
        """Wait until the batch is processed; other threads run meanwhile. After an exception it is thrown away."""
        ...


class _Lane:
    """One sequence on its way through the pipeline; greedy requests share one lane among all their sequences."""

    __slots__ = ("handle", "is_unwanted", "num_tokens", "seed", "sequence_indices", "submission")

    def __init__(self, submission: _Submission, sequence_indices: tuple[int, ...], seed: int) -> None:
        self.submission = submission
        self.sequence_indices = sequence_indices
        self.seed = seed
        self.num_tokens = 0
        self.is_unwanted = False  # its client has enough; it ends before the next step
        self.handle: PipelineSequence | None = None


@dataclass(frozen=True, slots=True)
class _Made:
    """What a step has made of a lane."""

    lane: _Lane
    ids: tuple[int, ...]
    log_probs: tuple[float, ...]
    finish_reason: FinishReason | None
    num_reused_blocks: int

    def chunk(self, index: int) -> Chunk:
        """Return it as the chunk of one of the sequences that the lane stands for."""
        return Chunk(
            sequence_index=index,
            token_ids=self.ids,
            log_probs=self.log_probs,
            finish_reason=self.finish_reason,
            num_reused_blocks=self.num_reused_blocks,
        )


class _Submission:
    """A request that was taken, with its lanes that have not started yet."""

    def __init__(self, request: GenerateRequest, sink: Sink, wake: Callable[[], None]) -> None:
        self.request = request
        self.sink = sink
        self.is_cancelled = False
        self._wake = wake
        self.waiting = deque(_lanes(self))

    def cancel(self) -> None:
        self.is_cancelled = True
        self._wake()


def _lanes(submission: _Submission) -> list[_Lane]:
    """Return the lanes that a request needs: one if greedy, else one for each sequence with a seed of its own."""
    sampling = submission.request.sampling
    indices = tuple(range(sampling.num_sequences))
    if sampling.temperature is None:
        return [_Lane(submission, indices, 0)]
    base = secrets.randbits(64) if sampling.seed is None else sampling.seed
    return [_Lane(submission, (index,), _generator_seed(base, index)) for index in indices]


def _generator_seed(seed: int, index: int) -> int:
    """Return 32 bits that depend on each of `seed`'s 64: the number at `index` of the stream splitmix64(seed).

    Source: Steele, Lea and Flood, Fast Splittable Pseudorandom Number Generators, 2014, figure 17.
    """
    mixed = (seed + (index + 1) * _GOLDEN_RATIO) % 2**64
    mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB % 2**64
    return (mixed ^ mixed >> 31) >> 32


class EngineLoop:
    """A `GenerationEngine` that owns a pipeline and the thread that steps it."""

    def __init__(
        self,
        settings: ServiceSettings,
        make_pipeline: Callable[[], Pipeline],
        *,
        on_step: Callable[[], None] = lambda: None,
        log: Callable[[str], None] = print,
    ) -> None:
        """Build the pipeline and start the thread.

        Args:
            settings: limits and policy.
            make_pipeline: builds the pipeline, now and again after a step has failed.
            on_step: called from the engine's thread after each step, when its tokens have been delivered; the next
                step is being computed then.
            log: takes a line for the server's log.
        """
        self._settings = settings
        self._make_pipeline = make_pipeline
        self._on_step = on_step
        self._log = log
        self._condition = threading.Condition()
        self._waiting: deque[_Submission] = deque()  # guarded by _condition, as is the next
        self._is_closing = False
        self._running: list[_Lane] = []  # of the engine's thread only, as is the next
        self._pipeline: Pipeline | None = make_pipeline()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def submit(self, request: GenerateRequest, sink: Sink) -> _Submission:
        """Take a request; see `GenerationEngine.submit`."""
        admission.check(request, self._settings)
        submission = _Submission(request, sink, self._wake)
        with self._condition:
            if self._is_closing:
                raise UnavailableError("the model is being unloaded")
            free = max(0, self._settings.max_batch_size - len(self._running))
            if len(self._waiting) >= self._settings.max_queue_size + free:
                message = f"max_queue_size: {len(self._waiting)} requests are waiting already; try again later"
                raise UnavailableError(message)
            self._waiting.append(submission)
            self._condition.notify()
        return submission

    def close(self) -> None:
        """Stop the engine; see `GenerationEngine.close`."""
        with self._condition:
            self._is_closing = True
            self._condition.notify()
        self._thread.join()

    def _wake(self) -> None:
        with self._condition:
            self._condition.notify()

    def _run(self) -> None:
        while self._wait_for_work():
            try:
                self._turn()
            except Exception as error:
                self._fail(error)
        reason = "the model is being unloaded"
        self._end(self._running, reason)
        self._end(self._take_waiting(), reason)
        self._pipeline = None

    def _wait_for_work(self) -> bool:
        """Block while there is nothing to do; return False once the engine is being closed."""
        with self._condition:
            while not (self._waiting or self._running or self._is_closing):
                self._condition.wait()
            return not self._is_closing

    def _turn(self) -> None:
        """Do one step, and deliver what the one before has made."""
        self._drop_cancelled()
        made = self._collect()
        self._ensure_pipeline()
        self._start_waiting()
        try:
            if self._pipeline is not None:
                self._pipeline.start_step()
        finally:  # what was made is good, whatever becomes of this step
            self._deliver(made)
        if self._pipeline is not None:
            self._pipeline.finish_step()

    def _ensure_pipeline(self) -> None:
        """Build a new pipeline after a failed step; if that fails, the next request tries again."""
        if self._pipeline is not None:
            return
        try:
            self._pipeline = self._make_pipeline()
        except Exception as error:
            self._log(f"engine: the pipeline could not be rebuilt: {error}")
            self._end(self._take_waiting(), f"the engine failed and could not be restarted: {error}")

    def _drop_cancelled(self) -> None:
        """Free the places of requests that nobody waits for any more."""
        with self._condition:
            if any(submission.is_cancelled for submission in self._waiting):
                self._waiting = deque(submission for submission in self._waiting if not submission.is_cancelled)
        for lane in [lane for lane in self._running if lane.is_unwanted or lane.submission.is_cancelled]:
            assert lane.handle is not None
            lane.handle.cancel()
            self._running.remove(lane)

    def _start_waiting(self) -> None:
        """Hand sequences to the pipeline, in order, until the next one has no place."""
        while self._pipeline is not None and (lane := self._next_lane()) is not None:
            request = lane.submission.request
            try:
                lane.handle = self._pipeline.add(request.input_ids, request.sampling, lane.seed)
            except Exception as error:
                self._log(f"engine: a request could not be started: {error}")
                self._end([lane], f"the engine could not start the request: {error}")
            else:
                self._running.append(lane)

    def _next_lane(self) -> _Lane | None:
        """Take the first waiting sequence if there is a place and KV pages for it."""
        with self._condition:
            if not self._waiting or len(self._running) >= self._settings.max_batch_size:
                return None
            submission = self._waiting[0]
            lane = submission.waiting[0]
            if sum(map(self._num_blocks, [*self._running, lane])) > self._settings.num_kv_blocks:
                return None
            submission.waiting.popleft()
            if not submission.waiting:
                self._waiting.popleft()
            return lane

    def _num_blocks(self, lane: _Lane) -> int:
        """Return the KV pages that the policy counts for a sequence."""
        request = lane.submission.request
        if self._settings.batch_scheduler_policy == "guaranteed_no_evict":
            num_tokens = admission.max_cached_tokens(request)
        else:
            num_tokens = len(request.input_ids) + lane.num_tokens
        return admission.num_blocks(num_tokens, self._settings.tokens_per_block)

    def _collect(self) -> list[_Made]:
        """Take what the last step has made; sequences that have ended free their place for the next one."""
        made = []
        for lane in list(self._running):
            assert lane.handle is not None
            ids, log_probs, finish_reason = lane.handle.read()
            lane.num_tokens += len(ids)
            if finish_reason is not None:
                self._running.remove(lane)
            if ids or finish_reason is not None:
                num_reused = lane.handle.num_reused_blocks
                made.append(_Made(lane, tuple(ids), tuple(log_probs), finish_reason, num_reused))
        return made

    def _deliver(self, made: Sequence[_Made]) -> None:
        """Pass on what a step has made."""
        for one in made:
            if one.finish_reason == "error":
                self._end([one.lane], "the model gave a result that is not a number")
            else:
                one.lane.is_unwanted = not self._offer(one)
        if not made:
            return
        try:
            self._on_step()
        except Exception as error:  # a step is being computed, which has to be waited for
            self._log(f"engine: what follows a step failed: {error!r}")

    def _offer(self, made: _Made) -> bool:
        """Call the sink for each sequence that the lane stands for; return whether one of them is to go on."""
        lane = made.lane
        lane.sequence_indices = tuple(
            index for index in lane.sequence_indices if self._sink(lane.submission, made.chunk(index))
        )
        return bool(lane.sequence_indices)

    def _sink(self, submission: _Submission, chunk: Chunk) -> bool:
        if submission.is_cancelled:
            return False
        try:
            return submission.sink(chunk)
        except Exception as error:
            # One request's trouble must not end the others'.
            self._log(f"engine: a request's chunk could not be delivered: {error!r}")
            return False

    def _fail(self, error: Exception) -> None:
        """Give up what is running after a failed step; what waits is served by a new pipeline."""
        self._log(f"engine: a step failed; {len(self._running)} sequences are lost, the pipeline is rebuilt: {error}")
        lost, self._running = self._running, []
        for lane in lost:
            lane.handle = None  # a handle keeps the old pipeline's memory alive
        self._pipeline = None
        self._end(lost, f"the engine failed in a step and was restarted: {error}")

    def _take_waiting(self) -> list[_Lane]:
        with self._condition:
            waiting, self._waiting = self._waiting, deque()
        return [submission.waiting[0] for submission in waiting]

    def _end(self, lanes: Iterable[_Lane], reason: str) -> None:
        """Tell the clients of `lanes` that no more comes; it holds for all sequences of their requests."""
        for lane in lanes:
            chunk = Chunk(sequence_index=lane.sequence_indices[0], token_ids=(), finish_reason="error", error=reason)
            self._sink(lane.submission, chunk)
            lane.submission.is_cancelled = True

"""A client process: jobs in, what came of each out; it sends and keeps times, and leaves all else to the runner.

python -m scalellm_trt.bench.load.client_process: messages of `exchange` over standard input and output.
"""

from __future__ import annotations

import asyncio
import gc
import os
import queue
import sys
import threading
import time
from typing import TYPE_CHECKING, Final

from scalellm_trt.bench.load import exchange
from scalellm_trt.bench.load.health import Watch
from scalellm_trt.bench.load.job_source import id_of_turn
from scalellm_trt.bench.question import Question
from scalellm_trt.errors import ScaleLLMError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import BinaryIO

    from scalellm_trt.bench.load.exchange import Begin, Job, Setup
    from scalellm_trt.bench.targets.raw import Asker, Raw, Reader
    from scalellm_trt.bench.tokens import ServedTokenizer

OPEN_LOOP_STREAMS: Final = 4
SWITCH_INTERVAL_S: Final = 0.0005
"""How long a thread that writes results may keep the event loop waiting."""


class Client:
    """Works off jobs."""

    def __init__(
        self, asker: Asker, reader: Reader, tokenizer: Callable[[], ServedTokenizer], say: Callable[[object], None]
    ) -> None:
        """Take how to ask, how to read an answer that a next turn needs, and where to tell what came."""
        self._asker, self._reader, self._tokenizer, self._say = asker, reader, tokenizer, say
        self._jobs: asyncio.Queue[Job | None] = asyncio.Queue()
        self._is_given_up = False
        self._timeout_s = 0.0

    def prepare(self, begin: Begin) -> None:
        """Forget the part before; the jobs of this one follow."""
        self._jobs = asyncio.Queue()
        self._is_given_up, self._timeout_s = False, begin.timeout_s

    def add(self, job: Job) -> None:
        """Take a job."""
        self._jobs.put_nowait(job)

    def finish(self, *, drops_waiting: bool) -> None:
        """Take no more jobs; forget those that wait, or not."""
        while drops_waiting and not self._jobs.empty():
            self._jobs.get_nowait()
        self._jobs.put_nowait(None)

    def give_up(self) -> None:
        """Cancel what runs, forget what waits."""
        self._is_given_up = True
        self.finish(drops_waiting=True)
        self._asker.give_up()

    async def close(self) -> None:
        """Let go of the target: an event loop with an open connection would not end."""
        await self._asker.close()

    async def run(self, begin: Begin) -> None:
        """Work off the jobs of a part of a cell."""
        await self._asker.prepare(begin.concurrency or OPEN_LOOP_STREAMS)
        if begin.concurrency is None:
            await self._run_open()
        else:
            await asyncio.gather(*(self._slot() for _ in range(begin.concurrency)))

    async def _slot(self) -> None:
        while (job := await self._jobs.get()) is not None:
            await self._have(job)
        self._jobs.put_nowait(None)  # for the other slots

    async def _run_open(self) -> None:
        live: set[asyncio.Task[None]] = set()
        while (job := await self._jobs.get()) is not None:
            if (wait_s := (job.due_s or 0.0) - time.monotonic()) > 0 and await self._is_over_within(wait_s):
                break
            task = asyncio.get_running_loop().create_task(self._have(job))
            live.add(task)
            task.add_done_callback(live.discard)
        await asyncio.gather(*live)

    async def _is_over_within(self, wait_s: float) -> bool:
        until_s = time.monotonic() + wait_s
        while not self._is_given_up and (left_s := until_s - time.monotonic()) > 0:
            await asyncio.sleep(min(left_s, 0.2))
        return self._is_given_up

    async def _have(self, job: Job) -> None:
        """Have a conversation, to its end or its first failure."""
        question, due_s, answer = job.first, job.due_s, ""
        for number, turn in enumerate(job.conversation.turns):
            if self._is_given_up:
                return
            if number:
                question = _next_question(question, answer, turn.messages, turn.max_tokens, self._tokenizer)
            raw = await self._asker.ask(question, id_of_turn(job.request_id, number), self._timeout_s)
            has_more = number + 1 < len(job.conversation.turns)
            answer = self._reader(raw).text if has_more else ""
            is_last = not has_more or raw.error is not None or raw.was_cancelled
            self._say(_asked(job, number, question, raw, due_s, is_last_turn=is_last))
            if is_last:
                return
            due_s = None


def _asked(
    job: Job, turn: int, question: Question, raw: Raw, due_s: float | None, *, is_last_turn: bool
) -> exchange.Asked:
    return exchange.Asked(
        job=job.index,
        turn=turn,
        messages=question.messages,
        max_tokens=question.max_tokens,
        due_s=raw.sent_s if due_s is None else due_s,
        raw=raw,
        is_last_turn=is_last_turn,
        is_warmup=job.is_warmup,
    )


def _next_question(
    last: Question,
    answer: str,
    messages: tuple[tuple[str, str], ...],
    max_tokens: int,
    tokenizer: Callable[[], ServedTokenizer],
) -> Question:
    """Return the question of a turn that carries all that was said before it."""
    whole = (*last.messages, ("assistant", answer), *messages)
    text = tokenizer().render(whole)
    return Question(messages=whole, text=text, ids=tokenizer().encode(text), max_tokens=max_tokens)


async def serve(setup: Setup, incoming: BinaryIO, say: Callable[[object], None]) -> None:
    """Do what is said on `incoming` until it ends."""
    from scalellm_trt.bench.targets import open_target

    tokenizer = open_target.tokenizer_of(setup.tokenizer)
    client = Client(*open_target.asker_and_reader(setup.way, tokenizer), tokenizer, say)
    orders: asyncio.Queue[object | None] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def listen() -> None:
        order: object | None = True
        while order is not None:
            order = exchange.receive(incoming)
            loop.call_soon_threadsafe(_take, client, orders, order)

    threading.Thread(target=listen, name="orders", daemon=True).start()
    say(exchange.Ready())
    while isinstance(order := await orders.get(), exchange.Begin):
        watch = Watch(loop_thread_only=setup.way.kind == "in-process")
        gc.collect()
        await client.run(order)
        cpu_share, lags_s = watch.stop()
        say(exchange.Ended(cpu_share=cpu_share, lags_s=lags_s))
    await client.close()


def _take(client: Client, orders: asyncio.Queue[object | None], order: object | None) -> None:
    if isinstance(order, exchange.Job):
        client.add(order)
    elif isinstance(order, exchange.NoMore):
        client.finish(drops_waiting=order.drops_waiting)
    else:
        if order is None or isinstance(order, exchange.GiveUp):
            client.give_up()
        if isinstance(order, exchange.Begin):
            client.prepare(order)
        if not isinstance(order, exchange.GiveUp):
            orders.put_nowait(order)


def _writer(outgoing: BinaryIO) -> Callable[[object], None]:
    """Return what sends from a thread of its own: a full pipe must not stop the event loop."""
    waiting: queue.SimpleQueue[object] = queue.SimpleQueue()

    def write() -> None:
        try:
            while True:
                exchange.send(outgoing, waiting.get())
        except OSError:
            os._exit(0)  # the runner is gone

    threading.Thread(target=write, name="results", daemon=True).start()
    return waiting.put


def main() -> None:
    """Serve until the orders end."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    incoming, outgoing = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print
    setup = exchange.receive(incoming)
    if not isinstance(setup, exchange.Setup):
        return
    gc.freeze()
    import uvloop

    try:
        uvloop.run(serve(setup, incoming, _writer(outgoing)))
    except ScaleLLMError as error:
        exchange.send(outgoing, exchange.Broken(message=str(error)))


if __name__ == "__main__":
    main()

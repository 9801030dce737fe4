"""Many clients, clients that leave, and the other ways in which the official client asks."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from concurrent.futures import ThreadPoolExecutor

import openai

from scripts.conformance.registry import check
from scripts.conformance.target import COUNTING, CheckError, Target, equal, joined, need, whole_text

FREED_WITHIN_S = 20.0


@check("client", "the asynchronous client is answered")
def _asynchronous(target: Target) -> None:
    async def ask() -> str:
        client = openai.AsyncOpenAI(base_url=str(target.client.base_url), api_key=target.client.api_key, max_retries=0)
        async with client:
            stream = await client.completions.create(model=target.model, prompt="Hi", max_tokens=4, stream=True)
            return "".join([chunk.choices[0].text async for chunk in stream])

    need(asyncio.run(ask()), "no text")


@check("client", "every answer has an x-request-id of its own")
def _request_id(target: Target) -> None:
    answers = [target.post(), target.post()]
    ids = {answer.headers.get("x-request-id") for answer in answers}
    need(None not in ids and len(ids) == 2, ids)


@check("client", "a wrong key is 401")
def _key(target: Target) -> None:
    if "OPENAI_API_KEY" not in os.environ:
        return
    with openai.OpenAI(base_url=target.client.base_url, api_key="wrong", max_retries=0) as client:
        try:
            client.models.list()
        except openai.AuthenticationError:
            return
    raise CheckError("was let in")


@check("concurrency", "eight streams at once all end, each with an id of its own")
def _streams(target: Target) -> None:
    def ask(number: int) -> tuple[str, set[str]]:
        chunks = list(target.chat(f"Count from {number} to {number + 9}.", stream=True))
        return joined(chunks), {chunk.id for chunk in chunks}

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(8)))
    need(all(text for text, _ in answers), answers)
    need(all(len(ids) == 1 for _, ids in answers) and len(set.union(*(ids for _, ids in answers))) == 8, answers)


@check("concurrency", "sixteen requests at once are all answered")
def _requests(target: Target) -> None:
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda number: target.complete(f"{number},", max_tokens=4), range(16)))
    equal([answer.usage.completion_tokens > 0 for answer in answers], [True] * 16)


@check("concurrency", "a short request overtakes a long one")
def _overtakes(target: Target) -> None:
    with target.complete(COUNTING, max_tokens=400, stream=True) as stream:
        next(iter(stream))
        whole_text(target.complete("Hi", max_tokens=1))
        num_left = sum(1 for _ in stream)
    need(num_left > 5, f"the long answer had {num_left} chunks left")


@check("cancel", "after a stream that was left, others are answered")
def _left(target: Target) -> None:
    for _ in range(3):
        with target.complete(COUNTING, max_tokens=2000, stream=True) as stream:
            next(iter(stream))
    started_s = time.monotonic()
    need(whole_text(target.chat()), "no text")
    need(time.monotonic() - started_s < FREED_WITHIN_S, f"after {time.monotonic() - started_s:.1f} s only")


@check("cancel", "after a request that was given up, others are answered")
def _given_up(target: Target) -> None:
    impatient = target.client.with_options(timeout=0.5)
    with contextlib.suppress(openai.APITimeoutError):
        impatient.completions.create(model=target.model, prompt=COUNTING, max_tokens=2000)
    started_s = time.monotonic()
    need(whole_text(target.chat()), "no text")
    need(time.monotonic() - started_s < FREED_WITHIN_S, f"after {time.monotonic() - started_s:.1f} s only")

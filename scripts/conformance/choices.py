"""What a request chooses: stops, seeds, several answers, log probabilities."""

from __future__ import annotations

from typing import Any

from scripts.conformance.registry import check
from scripts.conformance.target import COUNTING, Target, equal, joined, need, refused, whole_text, works_or_is_refused


def _text(target: Target, **fields: Any) -> str:  # noqa: ANN401
    return whole_text(target.complete(**{"max_tokens": 40, **fields}))


def _inner(target: Target, start: int, end: int) -> tuple[str, str]:
    """Return a text that the answer holds, and what stands before it."""
    text = _text(target)
    need(len(text) > end, f"the answer is too short to be stopped: {text!r}")
    return text[start:end], text[: text.find(text[start:end])]


@check("stop", "a text ends the answer and is not shown")
def _stop(target: Target) -> None:
    stop, before = _inner(target, 12, 13)
    answer = target.complete(max_tokens=40, stop=stop)
    equal((whole_text(answer), answer.choices[0].finish_reason), (before, "stop"))


@check("stop", "a text over several tokens ends it")
def _long_stop(target: Target) -> None:
    stop, before = _inner(target, 9, 18)
    equal(_text(target, stop=stop), before)


@check("stop", "the first of four texts ends it")
def _four(target: Target) -> None:
    stop, before = _inner(target, 9, 18)
    equal(_text(target, stop=["@@@@", stop, "####", "~~~~"]), before)


@check("stop", "in a stream no part of it is shown")
def _stream(target: Target) -> None:
    stop, before = _inner(target, 9, 18)
    chunks = list(target.complete(max_tokens=40, stop=[stop], stream=True))
    equal((joined(chunks), chunks[-1].choices[0].finish_reason), (before, "stop"))


@check("stop", "a text that never comes changes nothing")
def _never(target: Target) -> None:
    equal(_text(target, stop=["@@never@@"]), _text(target))


@check("stop", "five texts are refused")
def _five(target: Target) -> None:
    refused(target.post(stop=["a", "b", "c", "d", "e"]), "stop")


@check("seed", "the same seed gives the same text")
def _same(target: Target) -> None:
    first, again = (_text(target, prompt="Once", temperature=1.0, seed=7) for _ in range(2))
    equal(first, again)


@check("seed", "another seed gives another text")
def _other(target: Target) -> None:
    texts = {_text(target, prompt="Once", temperature=1.0, seed=seed) for seed in (1, 2, 3)}
    need(len(texts) > 1, texts)


@check("seed", "a stream of that seed has the same text")
def _streamed(target: Target) -> None:
    fields: dict[str, Any] = {"prompt": "Once", "temperature": 1.0, "seed": 7, "max_tokens": 40}
    equal(joined(target.complete(**fields, stream=True)), whole_text(target.complete(**fields)))


@check("n", "three answers have three indexes")
def _three(target: Target) -> None:
    answer = works_or_is_refused("n", lambda: target.chat(n=3, temperature=1.0))
    if answer is not None:
        equal([choice.index for choice in answer.choices], [0, 1, 2])


@check("n", "usage counts the tokens of all answers")
def _all(target: Target) -> None:
    answer = works_or_is_refused("n", lambda: target.chat("Count from 1 to 100.", n=2, max_tokens=5))
    if answer is not None:
        equal(answer.usage.completion_tokens, 10)


@check("n", "a stream tells answers apart")
def _apart(target: Target) -> None:
    chunks = works_or_is_refused("n", lambda: list(target.chat("Count from 1 to 100.", n=2, stream=True)))
    if chunks is not None:
        need(joined(chunks, 0) and joined(chunks, 1), "an answer is missing")
        reasons = [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason]
        equal(len(reasons), 2)


@check("n", "0 is refused")
def _zero(target: Target) -> None:
    refused(target.post(n=0), "n")


def _log_probs(target: Target, **fields: Any) -> Any:  # noqa: ANN401
    return works_or_is_refused("logprobs", lambda: target.chat(logprobs=True, **fields))


@check("logprobs", "the tokens are the text")
def _tokens(target: Target) -> None:
    answer = _log_probs(target)
    if answer is not None:
        equal("".join(token.token for token in answer.choices[0].logprobs.content), whole_text(answer))


@check("logprobs", "they are logarithms of probabilities, with the token's bytes")
def _values(target: Target) -> None:
    answer = _log_probs(target)
    if answer is not None:
        tokens = answer.choices[0].logprobs.content
        need(all(token.logprob <= 0 for token in tokens), tokens)
        equal(b"".join(bytes(token.bytes) for token in tokens).decode(), whole_text(answer))


@check("logprobs", "a stream has the same")
def _same_log_probs(target: Target) -> None:
    whole = _log_probs(target)
    if whole is not None:
        chunks = list(target.chat(logprobs=True, stream=True))
        found = [
            token.token
            for chunk in chunks
            if chunk.choices and chunk.choices[0].logprobs
            for token in chunk.choices[0].logprobs.content or []
        ]
        equal(found, [token.token for token in whole.choices[0].logprobs.content])


@check("logprobs", "without being asked for there are none")
def _none(target: Target) -> None:
    equal(target.chat().choices[0].logprobs, None)


@check("logprobs", "top_logprobs works or is refused")
def _top(target: Target) -> None:
    answer = works_or_is_refused("top_logprobs", lambda: target.chat(logprobs=True, top_logprobs=2))
    if answer is not None:
        equal({len(token.top_logprobs) for token in answer.choices[0].logprobs.content}, {2})


@check("logprobs", "top_logprobs without logprobs is refused")
def _top_alone(target: Target) -> None:
    refused(target.post(top_logprobs=2), None)


@check("logprobs", "a completion has tokens and offsets")
def _offsets(target: Target) -> None:
    answer = works_or_is_refused("logprobs", lambda: target.complete(max_tokens=8, logprobs=0))
    if answer is not None:
        found = answer.choices[0].logprobs
        equal("".join(found.tokens), whole_text(answer))
        need(len(found.tokens) == len(found.token_logprobs) == len(found.text_offset), found)


@check("sampling", "top_p 0 is as good as greedy")
def _top_p(target: Target) -> None:
    equal(_text(target, temperature=1.0, top_p=0), _text(target, prompt=COUNTING))

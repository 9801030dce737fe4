"""`/v1/chat/completions`, whole answers."""

from __future__ import annotations

import time
from typing import Any

from scripts.conformance.registry import check
from scripts.conformance.target import CAPITAL, COUNTING, Target, equal, need, whole_text


@check("chat", "the object has id, type, time and model")
def _object(target: Target) -> None:
    answer = target.chat()
    need(answer.id.startswith("chatcmpl-"), answer.id)
    equal(answer.object, "chat.completion")
    need(abs(answer.created - time.time()) < 300, answer.created)
    equal(answer.model, target.model)


@check("chat", "the message is the assistant's, with text and no refusal")
def _message(target: Target) -> None:
    choice = target.chat().choices[0]
    equal((choice.index, choice.message.role, choice.message.refusal), (0, "assistant", None))
    need(choice.message.content, choice)


@check("chat", "usage adds up")
def _usage(target: Target) -> None:
    usage = target.chat().usage
    need(usage.prompt_tokens > 0 and usage.completion_tokens > 0, usage)
    equal(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens)


@check("chat", "a longer prompt has more tokens")
def _longer(target: Target) -> None:
    short, long = target.chat("Hi", max_tokens=1), target.chat("Hi " * 50, max_tokens=1)
    need(long.usage.prompt_tokens >= short.usage.prompt_tokens + 40, (short.usage, long.usage))


@check("chat", "max_tokens ends with finish_reason length")
def _length(target: Target) -> None:
    answer = target.chat("Count from 1 to 100.", max_tokens=3)
    equal((answer.choices[0].finish_reason, answer.usage.completion_tokens), ("length", 3))


@check("chat", "a natural end has finish_reason stop")
def _stop(target: Target) -> None:
    answer = target.chat(max_tokens=200)
    equal(answer.choices[0].finish_reason, "stop")
    need(answer.usage.completion_tokens < 200, answer.usage)


@check("chat", "max_completion_tokens counts")
def _max_completion_tokens(target: Target) -> None:
    equal(target.chat("Count from 1 to 100.", max_completion_tokens=4).usage.completion_tokens, 4)


@check("chat", "max_completion_tokens wins over max_tokens")
def _wins(target: Target) -> None:
    answer = target.chat("Count from 1 to 100.", max_completion_tokens=4, max_tokens=9)
    equal(answer.usage.completion_tokens, 4)


@check("chat", "a max_tokens past the context is no error")
def _careless(target: Target) -> None:
    need(whole_text(target.chat(max_tokens=1_000_000)), "no text")


@check("chat", "without max_tokens there is an answer")
def _default(target: Target) -> None:
    need(whole_text(target.chat(max_tokens=None)), "no text")


@check("chat", "temperature 0 gives the same text each time")
def _greedy(target: Target) -> None:
    equal(whole_text(target.chat(COUNTING)), whole_text(target.chat(COUNTING)))


@check("chat", "content may be a list of text parts")
def _parts(target: Target) -> None:
    parts = [{"type": "text", "text": CAPITAL[:9]}, {"type": "text", "text": CAPITAL[9:]}]
    answer = target.chat(messages=[{"role": "user", "content": parts}])
    plain = target.chat()
    equal((answer.usage.prompt_tokens, whole_text(answer)), (plain.usage.prompt_tokens, whole_text(plain)))


@check("chat", "a system message is read")
def _system(target: Target) -> None:
    messages = [{"role": "system", "content": "Be brief. " * 20}, {"role": "user", "content": CAPITAL}]
    need(target.chat(messages=messages).usage.prompt_tokens > target.chat().usage.prompt_tokens + 30, "no more tokens")


@check("chat", "a developer message is a system message")
def _developer(target: Target) -> None:
    tokens = [
        target.chat(messages=[{"role": role, "content": "Be brief."}, {"role": "user", "content": "Hi"}]).usage
        for role in ("developer", "system")
    ]
    equal(tokens[0].prompt_tokens, tokens[1].prompt_tokens)


@check("chat", "an answer can be sent back as it came")
def _replay(target: Target) -> None:
    first = target.chat().choices[0].message
    messages = [{"role": "user", "content": CAPITAL}, first.model_dump(), {"role": "user", "content": "And of Italy?"}]
    need(whole_text(target.chat(messages=messages)), "no text")


@check("chat", "a message may have a name")
def _name(target: Target) -> None:
    need(whole_text(target.chat(messages=[{"role": "user", "name": "Ada", "content": CAPITAL}])), "no text")


@check("chat", "null is the default")
def _null(target: Target) -> None:
    names = ("n", "stop", "seed", "top_p", "logprobs", "logit_bias", "tools", "response_format", "stream", "user")
    fields: dict[str, Any] = dict.fromkeys(names)
    answer = target.post(**fields)
    equal(answer.status_code, 200)


@check("chat", "emoji and CJK come through")
def _unicode(target: Target) -> None:
    text = whole_text(target.chat("Repeat exactly: 你好 🙂 é", max_tokens=40))
    need("\ufffd" not in text, text)
    text.encode()

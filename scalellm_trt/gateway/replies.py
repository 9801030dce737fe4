"""An answer as OpenAI's JSON: whole, or as the chunks of a stream; chats and completions."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from scalellm_trt.gateway.request_log import new_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scalellm_trt.gateway.answer_text import Delta, ShownToken
    from scalellm_trt.gateway.jobs import Job

Json = dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens of a request.

    Attributes:
        completion_tokens: over all answers, end tokens included.
        cached_tokens: of the prompt, found in the engine's KV cache; None where the engine does not say.
    """

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int | None = None

    def to_json(self) -> Json:
        """Return OpenAI's object."""
        usage: Json = {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
        }
        if self.cached_tokens is not None:
            usage["prompt_tokens_details"] = {"cached_tokens": self.cached_tokens}
        return usage


class Dialect(Protocol):
    """How one endpoint writes whole answers."""

    def whole(self, answers: Sequence[Delta], usage: Usage) -> Json:
        """Return all answers at once."""
        ...


class StreamDialect(Dialect, Protocol):
    """How one endpoint writes answers whole and in pieces."""

    def chunk(self, index: int, delta: Delta, *, is_first: bool) -> Json:
        """Return a piece of answer `index`."""
        ...

    def usage_chunk(self, usage: Usage) -> Json:
        """Return the chunk after the last piece."""
        ...


class _OpenAI:
    """What both of OpenAI's endpoints have in common."""

    def __init__(self, job: Job, *, prefix: str, kind: str, chunk_kind: str) -> None:
        self._has_log_probs = job.generation.has_log_probs
        self._include_usage = job.include_usage
        self._kind, self._chunk_kind = kind, chunk_kind
        self._head: Json = {
            "id": f"{prefix}-{new_id()}",
            "object": chunk_kind,
            "created": int(time.time()),
            "model": job.model.name,
            "system_fingerprint": job.model.fingerprint,
        }

    def usage_chunk(self, usage: Usage) -> Json:
        """See `Dialect`."""
        return {**self._head, "choices": [], "usage": usage.to_json()}

    def _chunk(self, choice: Json) -> Json:
        body = {**self._head, "choices": [choice]}
        return {**body, "usage": None} if self._include_usage else body

    def _whole(self, choices: list[Json], usage: Usage) -> Json:
        return {**self._head, "object": self._kind, "choices": choices, "usage": usage.to_json()}


class ChatDialect(_OpenAI):
    """`/v1/chat/completions`."""

    def __init__(self, job: Job) -> None:
        """Answer `job`."""
        super().__init__(job, prefix="chatcmpl", kind="chat.completion", chunk_kind="chat.completion.chunk")

    def chunk(self, index: int, delta: Delta, *, is_first: bool) -> Json:
        """See `Dialect`."""
        content: Json = {"role": "assistant"} if is_first else {}
        if delta.text or is_first:
            content["content"] = delta.text
        return self._chunk(self._choice(index, "delta", content, delta))

    def whole(self, answers: Sequence[Delta], usage: Usage) -> Json:
        """See `Dialect`."""
        choices = []
        for index, answer in enumerate(answers):
            message: Json = {"role": "assistant", "content": answer.text, "refusal": None}
            choices.append(self._choice(index, "message", message, answer))
        return self._whole(choices, usage)

    def _choice(self, index: int, name: str, content: Json, delta: Delta) -> Json:
        log_probs = {"content": [_token(token) for token in delta.tokens]} if self._has_log_probs else None
        return {"index": index, name: content, "logprobs": log_probs, "finish_reason": delta.finish_reason}


class CompletionDialect(_OpenAI):
    """`/v1/completions`."""

    def __init__(self, job: Job) -> None:
        """Answer `job`."""
        super().__init__(job, prefix="cmpl", kind="text_completion", chunk_kind="text_completion")
        self._echoes, self._answers_per_prompt = job.echoes, job.generation.num_sequences

    def chunk(self, index: int, delta: Delta, *, is_first: bool) -> Json:
        """See `Dialect`."""
        return self._chunk(self._choice(index, delta, self._echo(index) if is_first else ""))

    def whole(self, answers: Sequence[Delta], usage: Usage) -> Json:
        """See `Dialect`."""
        choices = [self._choice(index, answer, self._echo(index)) for index, answer in enumerate(answers)]
        return self._whole(choices, usage)

    def _echo(self, index: int) -> str:
        """Return the prompt, where it is to go in front of its answers."""
        return self._echoes[index // self._answers_per_prompt] if self._echoes else ""

    def _choice(self, index: int, delta: Delta, echo: str) -> Json:
        log_probs = None
        if self._has_log_probs:
            log_probs = {
                "tokens": [_text(token) for token in delta.tokens],
                "token_logprobs": [token.log_prob for token in delta.tokens],
                "top_logprobs": None,
                "text_offset": [token.offset for token in delta.tokens],
            }
        return {"index": index, "text": echo + delta.text, "logprobs": log_probs, "finish_reason": delta.finish_reason}


class PredictDialect:
    """`/predict`, which does not stream."""

    def whole(self, answers: Sequence[Delta], usage: Usage) -> Json:
        """See `Dialect`."""
        return {"generated_text": answers[0].text}


def _token(token: ShownToken) -> Json:
    return {"token": _text(token), "logprob": token.log_prob, "bytes": list(token.raw), "top_logprobs": []}


def _text(token: ShownToken) -> str:
    return token.raw.decode("utf-8", "replace")

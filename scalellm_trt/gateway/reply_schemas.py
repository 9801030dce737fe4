"""What the gateway answers, as schemas for its OpenAPI description; `replies` writes the replies themselves."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

FinishReason = Literal["stop", "length"]


class _Reply(BaseModel):
    model_config = ConfigDict(extra="forbid")


class PromptDetails(_Reply):
    """Tokens of a prompt that the engine had in its KV cache."""

    cached_tokens: int = Field(ge=0)


class Usage(_Reply):
    """Tokens of a request; `completion_tokens` over all answers, end tokens included; details where they are known."""

    prompt_tokens: int = Field(ge=1)
    completion_tokens: int = Field(ge=0)
    total_tokens: int = Field(ge=1)
    prompt_tokens_details: PromptDetails = PromptDetails(cached_tokens=0)


class TokenLogProb(_Reply):
    """A shown token and the logarithm of its probability."""

    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[object]


class ChatLogProbs(_Reply):
    """The shown tokens of a chat's answer."""

    content: list[TokenLogProb]


class AnswerMessage(_Reply):
    """The model's message."""

    role: Literal["assistant"]
    content: str
    refusal: None


class ChatChoice(_Reply):
    """One answer of a chat."""

    index: int
    message: AnswerMessage
    logprobs: ChatLogProbs | None
    finish_reason: FinishReason


class _Head(_Reply):
    id: str
    created: int
    model: str
    system_fingerprint: str


class ChatCompletion(_Head):
    """The answer of `/v1/chat/completions`."""

    object: Literal["chat.completion"]
    choices: list[ChatChoice]
    usage: Usage


class CompletionLogProbs(_Reply):
    """The shown tokens of a completion."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: None
    text_offset: list[int]


class CompletionChoice(_Reply):
    """One answer of a completion."""

    index: int
    text: str
    logprobs: CompletionLogProbs | None
    finish_reason: FinishReason


class Completion(_Head):
    """The answer of `/v1/completions`."""

    object: Literal["text_completion"]
    choices: list[CompletionChoice]
    usage: Usage


class Prediction(_Reply):
    """The answer of `/predict`."""

    generated_text: str


class Model(_Reply):
    """A model that is offered."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelList(_Reply):
    """Every model that is offered."""

    object: Literal["list"]
    data: list[Model]


class ErrorObject(_Reply):
    """What is wrong, in OpenAI's shape."""

    message: str
    type: Literal[
        "invalid_request_error",
        "authentication_error",
        "permission_error",
        "not_found_error",
        "rate_limit_error",
        "server_error",
    ]
    param: str | None
    code: str | None


class Error(_Reply):
    """The body of every error."""

    error: ErrorObject

"""Request bodies as strangers write them: bytes in, checked fields out; what cannot be honoured is refused by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import PydanticCustomError

from scalellm_trt.gateway.errors import invalid

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scalellm_trt.gateway.errors import ApiError

Parsed = TypeVar("Parsed", bound=BaseModel)

MAX_STOP_BYTES: Final = 1024
_NO_GUIDED: Final = "guided decoding is not available here"
_NO_TOOLS: Final = "tools are not available here"
_NO_BIAS: Final = "the engine cannot change logits"
# Field → why it is refused, and the values that ask for nothing and therefore pass.
UNSUPPORTED: Final[Mapping[str, tuple[str, tuple[object, ...]]]] = {
    "audio": ("only text is made here", ()),
    "best_of": ("ask for answers with n", (1,)),
    "echo": ("the prompt is not repeated", (False,)),
    "function_call": (_NO_TOOLS, ("none",)),
    "functions": (_NO_TOOLS, ([],)),
    "logit_bias": (_NO_BIAS, ({},)),
    "min_p": ("use top_p", (0, 0.0)),
    "modalities": ("only text is made here", (["text"],)),
    "parallel_tool_calls": (_NO_TOOLS, ()),
    "prediction": ("predicted outputs are not available here", ()),
    "priority": ("requests are taken in the order in which they come", (0,)),
    "reasoning_effort": ("the effort cannot be chosen here", ()),
    "response_format": (_NO_GUIDED, ({"type": "text"},)),
    "service_tier": ("there is one tier only", ("auto", "default")),
    "store": ("answers are not stored", (False,)),
    "suffix": ("text cannot be inserted", ()),
    "tool_choice": (_NO_TOOLS, ("none",)),
    "tools": (_NO_TOOLS, ([],)),
    "top_logprobs": ("the engine gives the chosen token's probability only", (0,)),
    "web_search_options": (_NO_TOOLS, ()),
}

StopText = Annotated[str, Field(min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class StreamOptions(_Strict):
    """What a stream holds beside the answer."""

    include_usage: bool = False


class SamplingFields(_Strict):
    """What chats and completions have in common. Defaults are OpenAI's."""

    model: str
    stream: bool = False
    stream_options: StreamOptions | None = None
    temperature: float = Field(default=1.0, ge=0, le=2)
    top_p: float = Field(default=1.0, ge=0, le=1)
    top_k: int | None = Field(default=None, ge=0, lt=2**31)
    n: int = Field(default=1, ge=1, le=128)
    stop: list[StopText] = Field(default_factory=list, max_length=4)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    max_tokens: int | None = Field(default=None, ge=1)
    min_tokens: int | None = Field(default=None, ge=0)
    ignore_eos: bool = False
    presence_penalty: float = Field(default=0.0, ge=-2, le=2)
    frequency_penalty: float = Field(default=0.0, ge=-2, le=2)
    repetition_penalty: float | None = Field(default=None, gt=0)
    user: str | None = Field(default=None, max_length=512)
    metadata: dict[str, Annotated[str, Field(max_length=512)]] | None = Field(default=None, max_length=16)

    @field_validator("stop", mode="before")
    @classmethod
    def _several(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value


class TextPart(_Strict):
    """A piece of a message."""

    type: Literal["text"]
    text: str


class ChatMessage(_Strict):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: list[TextPart]
    name: str | None = None

    @field_validator("content", mode="before")
    @classmethod
    def _parts(cls, value: object) -> object:
        return [{"type": "text", "text": value}] if isinstance(value, str) else value

    def for_template(self) -> dict[str, str]:
        """Return the message in the words of chat templates, which know no `developer`."""
        role = "system" if self.role == "developer" else self.role
        content = "".join(part.text for part in self.content)
        return {"role": role, "content": content} | ({} if self.name is None else {"name": self.name})


class ChatRequest(SamplingFields):
    """Body of `/v1/chat/completions`."""

    messages: list[ChatMessage] = Field(min_length=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    logprobs: bool = False


class CompletionRequest(SamplingFields):
    """Body of `/v1/completions`: one prompt, as text or as token ids."""

    prompt: str | list[int]
    max_tokens: int | None = Field(default=16, ge=1)
    # 0 asks for the chosen token's probability, more for those of others, which no engine here gives.
    logprobs: int | None = Field(default=None, ge=0, le=0)

    @field_validator("prompt", mode="before")
    @classmethod
    def _one_prompt(cls, value: object) -> object:
        if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str):
            return value[0]
        is_ids = isinstance(value, list) and all(type(item) is int and 0 <= item < 2**31 for item in value)
        if not is_ids and not isinstance(value, str):
            raise PydanticCustomError("prompt", "must be one text or one list of token ids")
        return value


class PredictRequest(_Strict):
    """Body of `/predict`, ScaleLLM's own endpoint."""

    text: str = Field(min_length=1)
    model: str | None = None
    max_tokens: int | None = Field(default=None, ge=1)


def parse(body: bytes, schema: type[Parsed]) -> Parsed:
    """Read a request's body.

    Raises:
        ApiError: it is no JSON object, a field is wrong, or one cannot be honoured; by its name.
    """
    try:
        raw: Any = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise invalid(None, f"the body is not JSON: {error}") from error
    if not isinstance(raw, dict):
        raise invalid(None, "the body must be a JSON object")
    fields = {name: value for name, value in raw.items() if value is not None}
    for name, (reason, neutral) in UNSUPPORTED.items():
        if name in fields and name not in schema.model_fields and not _is_neutral(fields.pop(name), neutral):
            raise invalid(name, f"is not supported: {reason}")
    try:
        parsed = schema.model_validate(fields)
    except ValidationError as error:
        raise _first_problem(error) from error
    if isinstance(parsed, SamplingFields):
        _check(parsed)
    return parsed


def _check(fields: SamplingFields) -> None:
    if fields.stream_options is not None and not fields.stream:
        raise invalid("stream_options", "is only allowed when stream is true")
    if any(len(text.encode()) > MAX_STOP_BYTES for text in fields.stop):
        raise invalid("stop", f"a text may have at most {MAX_STOP_BYTES} bytes")


def _is_neutral(value: object, neutral: tuple[object, ...]) -> bool:
    return any(type(value) is type(item) and value == item for item in neutral)


def _first_problem(error: ValidationError) -> ApiError:
    problem = error.errors(include_url=False, include_input=False)[0]
    param = ".".join(map(str, problem["loc"]))
    if problem["type"] == "extra_forbidden":
        return invalid(param, "is not a field of this request")
    if problem["type"] == "missing":
        return invalid(param, "is missing")
    return invalid(param, problem["msg"][:1].lower() + problem["msg"][1:])

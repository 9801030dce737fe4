"""Request bodies as strangers write them: bytes in, checked fields out; what cannot be honoured is refused by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from scalellm_trt.gateway import refused
from scalellm_trt.gateway.errors import invalid
from scalellm_trt.gateway.prompts import PromptField
from scalellm_trt.gateway.response_format import ResponseFormat

if TYPE_CHECKING:
    from scalellm_trt.gateway.errors import ApiError

Parsed = TypeVar("Parsed", bound=BaseModel)

MAX_STOP_BYTES: Final = 1024
MAX_BAD_WORDS: Final = 64
MAX_BIASES: Final = 1024

Word = Annotated[str, Field(min_length=1)]
TokenKey = Annotated[str, Field(pattern=r"^[0-9]{1,9}$")]
Bias = Annotated[float, Field(ge=-100, le=100)]


class _Strict(BaseModel):
    """An object of a body; as in OpenAI's API, null is the same as nothing."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, value: object) -> object:
        return {name: item for name, item in value.items() if item is not None} if isinstance(value, dict) else value


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
    stop: list[Word] = Field(default_factory=list, max_length=4)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    max_tokens: int | None = Field(default=None, ge=1)
    min_tokens: int | None = Field(default=None, ge=0)
    ignore_eos: bool = False
    presence_penalty: float = Field(default=0.0, ge=-2, le=2)
    frequency_penalty: float = Field(default=0.0, ge=-2, le=2)
    repetition_penalty: float | None = Field(default=None, gt=0)
    logit_bias: dict[TokenKey, Bias] = Field(default_factory=dict, max_length=MAX_BIASES)
    bad_words: list[Word] = Field(default_factory=list, max_length=MAX_BAD_WORDS)
    response_format: ResponseFormat | None = None
    user: str | None = Field(default=None, max_length=512)
    safety_identifier: str | None = Field(default=None, max_length=512)
    metadata: dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]] | None = Field(
        default=None, max_length=16
    )

    @field_validator("stop", mode="before", json_schema_input_type=Word | Annotated[list[Word], Field(max_length=4)])
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

    @field_validator("content", mode="before", json_schema_input_type=str | list[TextPart])
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
    """Body of `/v1/completions`: prompts as text or as token ids."""

    prompt: PromptField
    max_tokens: int | None = Field(default=16, ge=1)
    echo: bool = False
    # 0 asks for the chosen token's probability, more for those of others, which no engine here gives.
    logprobs: int | None = Field(default=None, ge=0, le=0)


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
    try:
        parsed = schema.model_validate(_without_refused(raw, schema))
    except ValidationError as error:
        raise _first_problem(error) from error
    if isinstance(parsed, SamplingFields):
        _check(parsed)
    return parsed


def _without_refused(raw: dict[str, object], schema: type[BaseModel]) -> object:
    if schema is PredictRequest:
        return raw
    if raw.get("best_of") == raw.get("n"):
        # Of as many answers as are wanted none is the best.
        raw.pop("best_of", None)
    if isinstance(raw.get("messages"), list):
        messages = raw["messages"]
        assert isinstance(messages, list)
        raw["messages"] = [
            refused.take_out(message, refused.IN_MESSAGES, prefix=f"messages.{position}.")
            for position, message in enumerate(messages)
        ]
    raw["stream_options"] = refused.take_out(
        raw.get("stream_options"), refused.IN_STREAM_OPTIONS, prefix="stream_options."
    )
    return refused.take_out(raw, refused.IN_REQUESTS, own=schema.model_fields)


def _check(fields: SamplingFields) -> None:
    if fields.stream_options is not None and not fields.stream:
        raise invalid("stream_options", "is only allowed when stream is true")
    for name, words in (("stop", fields.stop), ("bad_words", fields.bad_words)):
        if any(len(text.encode()) > MAX_STOP_BYTES for text in words):
            raise invalid(name, f"a text may have at most {MAX_STOP_BYTES} bytes")
    if isinstance(fields, CompletionRequest) and fields.stream and len(fields.prompt) > 1:
        raise invalid("prompt", "several prompts cannot be streamed; send them apart, or without stream")
    if isinstance(fields, CompletionRequest) and fields.echo and fields.logprobs is not None:
        raise invalid("echo", "is not possible with logprobs: the engine gives none for the prompt")


def _first_problem(error: ValidationError) -> ApiError:
    problem = error.errors(include_url=False, include_input=False)[0]
    param = _path(problem["loc"])
    if problem["type"] == "extra_forbidden":
        return invalid(param, "is not a field of this request")
    if problem["type"] == "missing":
        return invalid(param, "is missing")
    return invalid(param, problem["msg"][:1].lower() + problem["msg"][1:])


def _path(places: tuple[int | str, ...]) -> str:
    """Return where a problem is in the words of the body, which holds neither pydantic's `[key]` nor a union's tag."""
    if places[:1] == ("response_format",):
        places = places[:1] + places[2:]
    return ".".join(str(place) for place in places if place != "[key]")

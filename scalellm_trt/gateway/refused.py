"""Fields of OpenAI's API that nothing here can honour: why, and the values that ask for nothing and therefore pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from scalellm_trt.gateway.errors import invalid

if TYPE_CHECKING:
    from collections.abc import Container, Mapping


class Refused(NamedTuple):
    """Why a field is refused, and its values that are none the less taken."""

    reason: str
    neutral: tuple[object, ...] = ()


_NO_TOOLS: Final = "tools are not available here"
_ONLY_TEXT: Final = "only text is read and made here"

IN_REQUESTS: Final[Mapping[str, Refused]] = {
    "audio": Refused(_ONLY_TEXT),
    "best_of": Refused("ask for answers with n", (1,)),
    "echo": Refused("the prompt is not repeated", (False,)),
    "function_call": Refused(_NO_TOOLS, ("none",)),
    "functions": Refused(_NO_TOOLS, ([],)),
    "min_p": Refused("use top_p", (0, 0.0)),
    "modalities": Refused(_ONLY_TEXT, (["text"],)),
    "moderation": Refused("texts are not judged here"),
    "parallel_tool_calls": Refused(_NO_TOOLS),
    "prediction": Refused("predicted outputs are not available here"),
    "priority": Refused("requests are taken in the order in which they come", (0,)),
    "prompt_cache_key": Refused("prompts are known again by their tokens"),
    "prompt_cache_options": Refused("prompts are known again by their tokens"),
    "prompt_cache_retention": Refused("how long a prompt is kept cannot be chosen"),
    "reasoning_effort": Refused("the effort cannot be chosen", ("none",)),
    "service_tier": Refused("there is one tier only", ("auto", "default")),
    "store": Refused("answers are not stored", (False,)),
    "suffix": Refused("text cannot be inserted", ("",)),
    "tool_choice": Refused(_NO_TOOLS, ("none",)),
    "tools": Refused(_NO_TOOLS, ([],)),
    "top_logprobs": Refused("the engine gives the chosen token's probability only", (0,)),
    "verbosity": Refused("it cannot be chosen; ask for it in the prompt", ("medium",)),
    "web_search_options": Refused(_NO_TOOLS),
}

IN_MESSAGES: Final[Mapping[str, Refused]] = {
    "annotations": Refused(_NO_TOOLS, ([],)),
    "audio": Refused(_ONLY_TEXT),
    "function_call": Refused(_NO_TOOLS),
    "refusal": Refused("say it in content"),
    "tool_call_id": Refused(_NO_TOOLS),
    "tool_calls": Refused(_NO_TOOLS, ([],)),
}
"""What clients send back in a conversation: our own answers hold `refusal: null`."""

IN_STREAM_OPTIONS: Final[Mapping[str, Refused]] = {
    "include_obfuscation": Refused("a stream holds the answer only", (False,)),
}


def take_out(fields: object, refused: Mapping[str, Refused], own: Container[str] = (), prefix: str = "") -> object:
    """Return `fields` without those that ask for nothing; what is no object is returned as it is.

    Args:
        fields: an object of a request's body.
        refused: the table for such objects.
        own: fields of the table that this object has all the same.
        prefix: where the object stands in the body, with a final dot.

    Raises:
        ApiError: one of them asks for something.
    """
    if not isinstance(fields, dict):
        return fields
    for name, value in fields.items():
        is_refused = name in refused and name not in own
        if is_refused and value is not None and not _is_one_of(value, refused[name].neutral):
            raise invalid(prefix + name, f"is not supported: {refused[name].reason}")
    return {name: value for name, value in fields.items() if name in own or name not in refused}


def _is_one_of(value: object, neutral: tuple[object, ...]) -> bool:
    # 1 == True, and 0 == False, in Python only.
    return any(type(value) is type(item) and value == item for item in neutral)

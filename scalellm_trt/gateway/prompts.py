"""The `prompt` of a completion: one or several, each a text or token ids."""

from __future__ import annotations

from typing import Annotated, Final, TypeGuard

from pydantic import Field, PlainValidator
from pydantic_core import PydanticCustomError

MAX_PROMPTS: Final = 128

TokenId = Annotated[int, Field(ge=0, lt=2**31)]
_Ids = Annotated[list[TokenId], Field(min_length=1)]
_Written = (
    str
    | _Ids
    | Annotated[list[str], Field(min_length=1, max_length=MAX_PROMPTS)]
    | Annotated[list[_Ids], Field(min_length=1, max_length=MAX_PROMPTS)]
)


def read(value: object) -> tuple[str | list[int], ...]:
    """Return the prompts in `value`.

    Checked by hand: pydantic would try each member of the union on each of many thousand ids, and keep every failure.
    """
    if isinstance(value, str):
        return (value,)
    if _is_ids(value):
        return (value,)
    if not isinstance(value, list) or not value or not (_are_texts(value) or all(_is_ids(item) for item in value)):
        raise PydanticCustomError("prompt", "must be a text, a list of texts, a list of token ids, or a list of those")
    if len(value) > MAX_PROMPTS:
        raise PydanticCustomError("prompt", "at most {max} prompts are taken", {"max": MAX_PROMPTS})
    return tuple(value)


def _is_ids(value: object) -> TypeGuard[list[int]]:
    if not isinstance(value, list) or not value:
        return False
    # A bool is an int in Python only.
    return all(type(item) is int and 0 <= item < 2**31 for item in value)


def _are_texts(values: list[object]) -> bool:
    return all(isinstance(item, str) for item in values)


PromptField = Annotated[tuple[str | list[int], ...], PlainValidator(read, json_schema_input_type=_Written)]

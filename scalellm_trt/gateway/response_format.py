"""The `response_format` of a request: what guided decoding is to hold the answer to."""

from __future__ import annotations

from typing import Annotated, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field

from scalellm_trt.gateway.tensors import Guide


class _Format(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class TextFormat(_Format):
    """Any text."""

    type: Literal["text"]

    def guide(self) -> None:
        """Return that nothing guides the answer."""


class JsonObjectFormat(_Format):
    """Any JSON."""

    type: Literal["json_object"]

    def guide(self) -> Guide:
        """Return what guides the answer."""
        return Guide(kind="json", text=None)


class NamedSchema(_Format):
    """A JSON schema and what it is called; `strict` is always kept: an engine that guides does so."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")
    description: str | None = None
    schema_: dict[str, object] = Field(alias="schema")
    strict: bool | None = None


class JsonSchemaFormat(_Format):
    """JSON of one shape."""

    type: Literal["json_schema"]
    json_schema: NamedSchema

    def guide(self) -> Guide:
        """Return what guides the answer."""
        return Guide(kind="json_schema", text=orjson.dumps(self.json_schema.schema_).decode())


ResponseFormat = Annotated[TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")]

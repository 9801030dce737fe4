"""A protobuf message in, JSON as Triton's HTTP API writes it out: names as in the .proto, 64-bit integers as numbers.

protobuf's own conversion writes 64-bit integers as text, which no client of Triton expects.
"""

from __future__ import annotations

import base64
from typing import Any


def as_json(message: Any) -> dict[str, Any]:  # noqa: ANN401  protobuf's generated classes have no types
    """Return every field with its value or its default; what has a presence of its own and is not there is left out."""
    return {
        field.name: _field(field, getattr(message, field.name))
        for field in message.DESCRIPTOR.fields
        if not field.has_presence or message.HasField(field.name)
    }


def _field(field: Any, value: Any) -> Any:  # noqa: ANN401
    if field.is_repeated:
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            kind = field.message_type.fields_by_name["value"]
            return {str(key): _single(kind, item) for key, item in value.items()}
        return [_single(field, item) for item in value]
    return _single(field, value)


def _single(field: Any, value: Any) -> Any:  # noqa: ANN401
    if field.message_type is not None:
        return as_json(value)
    if field.enum_type is not None:
        return field.enum_type.values_by_number[value].name
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value

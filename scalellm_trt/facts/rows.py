"""What all tables of `data/` share: parsed YAML in, rows of a type out. A row without a source is an error."""

from __future__ import annotations

import datetime
import difflib
from dataclasses import dataclass
from importlib import resources
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar

from scalellm_trt.errors import ScaleLLMError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    Row = Mapping[str, object]

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a row's figures come from. `verified` means that somebody ran it; else it is printed as an estimate."""

    source: str
    date: datetime.date
    verified: bool


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that looks most like `name`, if any looks like it."""
    return next(iter(difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)), None)


def parse_rows(name: str, raw: object, parse: Callable[[str, Row], T]) -> Mapping[str, T]:
    """Turn a parsed YAML table of rows into types.

    Raises:
        ScaleLLMError: a row is incomplete, of a wrong type, or without source and date: our own mistake.
    """
    if not isinstance(raw, dict):
        message = f"data/{name} is not a table of rows"
        raise ScaleLLMError(message)
    rows: dict[str, T] = {}
    for key, row in raw.items():
        try:
            if not isinstance(row, dict):
                raise TypeError("is not a table")
            rows[str(key)] = parse(str(key), row)
        except KeyError as error:
            message = f"data/{name}: {key}: {error.args[0]} is missing"
            raise ScaleLLMError(message) from error
        except TypeError as error:
            message = f"data/{name}: {key}: {error}"
            raise ScaleLLMError(message) from error
    return MappingProxyType(rows)


def load(name: str, parse: Callable[[str, Row], T], section: str | None = None) -> Mapping[str, T]:
    """Read a bundled file, or one section of it, into rows."""
    import yaml

    text = (resources.files("scalellm_trt") / "data" / name).read_text(encoding="utf-8")
    raw = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return parse_rows(name, raw if section is None else raw[section], parse)


def origin(row: Row) -> Origin:
    """Return a row's source, date and whether somebody ran it."""
    date = row["date"]
    if not isinstance(date, datetime.date):
        raise _wrong("date", "a date", date)
    return Origin(source=text(row, "source"), date=date, verified=flag(row, "verified"))


def text(row: Row, key: str) -> str:
    """Return a text that is not empty."""
    value = row[key]
    if not isinstance(value, str) or not value.strip():
        raise _wrong(key, "a text", value)
    return value


def text_or_none(row: Row, key: str) -> str | None:
    """Return a text, or None for null."""
    return None if row[key] is None else text(row, key)


def whole(row: Row, key: str) -> int:
    """Return a whole number, 0 or more."""
    value = row[key]
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise _wrong(key, "a whole number", value)
    return value


def whole_or_none(row: Row, key: str) -> int | None:
    """Return a whole number, or None for null."""
    return None if row[key] is None else whole(row, key)


def number(row: Row, key: str) -> float:
    """Return a number above 0."""
    value = row[key]
    if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
        raise _wrong(key, "a number above 0", value)
    return float(value)


def number_or_none(row: Row, key: str) -> float | None:
    """Return a number above 0, or None for null."""
    return None if row[key] is None else number(row, key)


def flag(row: Row, key: str) -> bool:
    """Return true or false."""
    value = row[key]
    if not isinstance(value, bool):
        raise _wrong(key, "true or false", value)
    return value


def one_of(row: Row, key: str, allowed: tuple[str, ...]) -> str:
    """Return a text of a closed set."""
    value = text(row, key)
    if value not in allowed:
        raise _wrong(key, f"one of {', '.join(allowed)}", value)
    return value


def texts(row: Row, key: str) -> tuple[str, ...]:
    """Return a list of texts."""
    value = row[key]
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise _wrong(key, "a list of texts", value)
    return tuple(value)


def wholes(row: Row, key: str) -> tuple[int, ...]:
    """Return a list of whole numbers above 0."""
    value = row[key]
    if not isinstance(value, list) or not all(isinstance(item, int) and item > 0 for item in value):
        raise _wrong(key, "a list of whole numbers", value)
    return tuple(value)


def table(row: Row, key: str) -> dict[str, object]:
    """Return a table, its keys as texts."""
    value = row[key]
    if not isinstance(value, dict):
        raise _wrong(key, "a table", value)
    return {str(name): item for name, item in value.items()}


def text_table(row: Row, key: str) -> Mapping[str, str]:
    """Return a table of texts."""
    found = table(row, key)
    return MappingProxyType({name: text(found, name) for name in found})


def text_or_none_table(row: Row, key: str) -> Mapping[str, str | None]:
    """Return a table of texts and nulls."""
    found = table(row, key)
    return MappingProxyType({name: text_or_none(found, name) for name in found})


def number_table(row: Row, key: str) -> Mapping[str, float]:
    """Return a table of numbers above 0."""
    found = table(row, key)
    return MappingProxyType({name: number(found, name) for name in found})


def whole_table(row: Row, key: str) -> Mapping[str, int]:
    """Return a table of whole numbers."""
    found = table(row, key)
    return MappingProxyType({name: whole(found, name) for name in found})


def _wrong(key: str, expected: str, found: object) -> TypeError:
    return TypeError(f"{key} must be {expected}, found {found!r}")

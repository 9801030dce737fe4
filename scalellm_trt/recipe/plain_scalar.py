"""An unquoted YAML word in, its value out; a word that YAML's versions or readers take differently is refused."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scalellm_trt.recipe.tree import Scalar

_TAG = "tag:yaml.org,2002:"
_DECIMAL = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})", re.ASCII)
_FRACTION = re.compile(r"[-+]?[0-9]+\.[0-9]*([eE][-+][0-9]+)?", re.ASCII)
# Numbers to YAML 1.2 that PyYAML, a YAML 1.1 reader, hands over as text: 1e3, 1.5e3, 08, 0o17.
_NUMBER_ELSEWHERE = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|0o[0-7]+", re.ASCII)
_NUMBER_HINT = "Write digits, such as 1000 or 0.5, or quote it if text is meant: '{text}'."


@dataclass(frozen=True, slots=True, kw_only=True)
class Ambiguity:
    """Why a word has no certain value, and how to write what was meant."""

    message: str
    hint: str


def resolve(text: str, tag: str) -> Scalar | Ambiguity:
    """Return the value of the unquoted word `text`, to which PyYAML has given `tag`.

    Only the forms that YAML 1.1 and 1.2 read alike have a value.
    """
    kind = tag.removeprefix(_TAG)
    if kind == "null":
        return None
    if kind == "bool":
        return _bool(text)
    if kind == "int":
        return int(text) if _DECIMAL.fullmatch(text) else _no_plain_number(text)
    if kind == "float":
        return _float(text)
    if kind == "timestamp":
        hint = f"Quote it if text is meant: '{text}'."
        return Ambiguity(message=f"{text!r} without quotes is a date to YAML", hint=hint)
    return _no_plain_number(text) if _NUMBER_ELSEWHERE.fullmatch(text) else text


def _bool(text: str) -> bool | Ambiguity:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    meant = "true" if text.lower() in ("yes", "on") else "false"
    return Ambiguity(
        message=f"{text!r} without quotes is {meant} to YAML 1.1 and text to YAML 1.2",
        hint=f"Write {meant}, or quote it if text is meant: '{text}'.",
    )


def _float(text: str) -> float | Ambiguity:
    if _FRACTION.fullmatch(text) and math.isfinite(value := float(text)):
        return value
    return _no_plain_number(text)


def _no_plain_number(text: str) -> Ambiguity:
    shown = text if len(text) <= 40 else f"{text[:40]}…"
    return Ambiguity(
        message=f"{shown!r} without quotes is not the same number to every YAML reader",
        hint=_NUMBER_HINT.format(text=shown),
    )

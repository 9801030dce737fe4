"""Checks by group and name, in the order in which they are written."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from scripts.conformance.target import CheckError, Target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Body = Callable[[Target], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that OpenAI's API does."""

    group: str
    name: str
    body: Body


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a server did; `problem` is None where it did well."""

    group: str
    name: str
    problem: str | None
    seconds: float

    def to_json(self) -> dict[str, object]:
        """Return the JSON of the report."""
        return asdict(self)


CHECKS: list[Check] = []


def check(group: str, name: str) -> Callable[[Body], Body]:
    """Register a function that raises where a server does not do `name`."""

    def register(body: Body) -> Body:
        CHECKS.append(Check(group=group, name=name, body=body))
        return body

    return register


def run(target: Target) -> Iterator[Outcome]:
    """Ask everything, and yield how each went."""
    for each in CHECKS:
        started_s = time.monotonic()
        problem = None
        try:
            each.body(target)
        except CheckError as error:
            problem = str(error)
        except Exception as error:
            # A server may fail in any way; the others are to be asked all the same.
            problem = f"{type(error).__name__}: {error}"
        seconds = round(time.monotonic() - started_s, 3)
        yield Outcome(group=each.group, name=each.name, problem=problem, seconds=seconds)

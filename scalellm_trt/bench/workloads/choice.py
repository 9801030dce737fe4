"""A workload as it is written on the command line; the workload out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from scalellm_trt.bench.workloads import lengths
from scalellm_trt.bench.workloads.synthetic import Synthetic
from scalellm_trt.bench.workloads.text_source import TextSource
from scalellm_trt.errors import Problem, RecipeError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from scalellm_trt.bench.tokens import ServedTokenizer
    from scalellm_trt.bench.workload import Workload

NAMES = ("lengths",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One `--workload`.

    Attributes:
        settings: `key=value` behind the name.
        concurrencies: its own list, from `@1,2`; None takes the run's.
    """

    name: str
    settings: Mapping[str, str]
    path: Path | None = None
    concurrencies: tuple[int, ...] | None = None


def parse(text: str) -> Choice:
    """Read one `--workload`: `NAME[:key=value,...][@CONCURRENCY,...]`.

    Raises:
        RecipeError: it is none.
    """
    rest, at, numbers = text.rpartition("@")
    own = concurrencies(numbers, "--workload") if at else None
    name, _, given = (rest if at else text).partition(":")
    if name not in NAMES:
        message = f"{name!r} is no workload"
        raise _wrong(message)
    settings = dict(part.partition("=")[::2] for part in given.split(",") if part)
    return Choice(name=name, settings=settings, concurrencies=own)


def concurrencies(text: str, option: str) -> tuple[int, ...]:
    """Read a list such as `1,2,4`.

    Raises:
        RecipeError: a part is no whole number of 1 or more.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdecimal() and int(part) > 0 for part in parts):
        message = f"{text!r} is no list of numbers"
        raise RecipeError([Problem(key=option, message=message, hint="Write it as 1,2,4,8.")])
    return tuple(int(part) for part in parts)


def make(choice: Choice, tokenizer: ServedTokenizer, *, isl: str, osl: str, seed: int) -> Workload:
    """Return the workload.

    Raises:
        RecipeError: a setting or a length is wrong.
    """
    source = TextSource(tokenizer)
    prompt, answer = lengths.parse(isl, "--isl"), lengths.parse(osl, "--osl")
    return Synthetic(tokenizer, source, isl=prompt, osl=answer, seed=seed)


def _wrong(message: str) -> RecipeError:
    hint = f"Allowed: {', '.join(NAMES)}; see docs/guide.md."
    return RecipeError([Problem(key="--workload", message=message, hint=hint)])

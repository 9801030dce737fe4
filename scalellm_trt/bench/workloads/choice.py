"""A workload as it is written on the command line; the workload out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from scalellm_trt.bench.workloads import lengths, long_chat
from scalellm_trt.bench.workloads.conversations import Conversations
from scalellm_trt.bench.workloads.shared_prefix import SharedPrefix
from scalellm_trt.bench.workloads.synthetic import Synthetic
from scalellm_trt.bench.workloads.text_source import TextSource
from scalellm_trt.bench.workloads.user_file import UserFile
from scalellm_trt.errors import Problem, RecipeError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scalellm_trt.bench.tokens import ServedTokenizer
    from scalellm_trt.bench.workload import Workload

NAMES: dict[str, tuple[str, ...]] = {
    "lengths": ("requests",),
    "long-chat": ("total", "osl", "requests"),
    "shared-prefix": ("prefixes", "prefix", "requests"),
    "conversations": ("turns", "follow", "requests"),
    "file": ("turns", "requests"),
}
"""By name the settings that a workload takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One `--workload`.

    Attributes:
        settings: `key=value` behind the name.
        path: of a file.
        concurrencies: its own list, from `@1,2`; None takes the run's.
        num_requests: of each of its measurements; None takes the run's.
    """

    name: str
    settings: Mapping[str, str]
    path: Path | None = None
    concurrencies: tuple[int, ...] | None = None
    num_requests: int | None = None


def parse(text: str) -> Choice:
    """Read one `--workload`: `NAME[:key=value;...][@CONCURRENCY,...]` or `file:PATH[?key=value;...][@...]`.

    Raises:
        RecipeError: it is none.
    """
    rest, at, numbers = text.rpartition("@")
    own = concurrencies(numbers, "--workload") if at else None
    name, _, given = (rest if at else text).partition(":")
    if name not in NAMES:
        message = f"{name!r} is no workload"
        raise _wrong(message)
    path = None
    if name == "file":
        file, _, given = given.partition("?")
        path = Path(file)
    settings = dict(part.partition("=")[::2] for part in given.split(";") if part)
    for key in settings.keys() - set(NAMES[name]):
        message = f"{name} has no setting {key!r}; it takes {', '.join(NAMES[name])}"
        raise _wrong(message)
    requests = _number(settings, "requests", None)
    return Choice(name=name, settings=settings, path=path, concurrencies=own, num_requests=requests)


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
    """Return the workload; `isl` and `osl` are the run's, for those that have no lengths of their own.

    Raises:
        RecipeError: a setting or a length is wrong, or a file is.
    """
    settings = choice.settings
    prompt, answer = lengths.parse(isl, "--isl"), lengths.parse(osl, "--osl")
    if choice.path is not None:
        turns = settings.get("turns", "all")
        if turns not in ("all", "first"):
            message = f"turns={turns}: must be all or first"
            raise _wrong(message)
        return UserFile(tokenizer, choice.path, osl=answer, seed=seed, first_only=turns == "first")
    source = TextSource(tokenizer)
    if choice.name == "long-chat":
        total, own = _number(settings, "total", long_chat.TOTAL_TOKENS), settings.get("osl", long_chat.ANSWER)
        drawn = lengths.parse(own, "--workload")
        if total is None or drawn.high >= total:
            message = f"answers of up to {drawn.high} tokens leave no prompt of {total}"
            raise _wrong(message)
        return long_chat.LongChat(tokenizer, source, total=total, osl=drawn, seed=seed)
    if choice.name == "shared-prefix":
        count, prefix = _number(settings, "prefixes", 4) or 4, _number(settings, "prefix", 1024) or 1024
        return SharedPrefix(tokenizer, source, num_prefixes=count, prefix=prefix, isl=prompt, osl=answer, seed=seed)
    if choice.name == "conversations":
        num_turns = lengths.parse(settings.get("turns", "4"), "--workload")
        follow = lengths.parse(settings.get("follow", "64"), "--workload")
        return Conversations(tokenizer, source, turns=num_turns, follow=follow, isl=prompt, osl=answer, seed=seed)
    return Synthetic(tokenizer, source, isl=prompt, osl=answer, seed=seed)


def _number(settings: Mapping[str, str], key: str, default: int | None) -> int | None:
    value = settings.get(key)
    if value is None:
        return default
    if not (value.isascii() and value.isdecimal() and int(value) > 0):
        message = f"{key}={value}: must be a whole number of 1 or more"
        raise _wrong(message)
    return int(value)


def _wrong(message: str) -> RecipeError:
    hint = "Allowed: " + ", ".join(f"{name} ({', '.join(keys)})" for name, keys in NAMES.items())
    return RecipeError([Problem(key="--workload", message=message, hint=f"{hint}; see docs/guide.md.")])

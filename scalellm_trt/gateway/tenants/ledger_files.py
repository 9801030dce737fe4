"""The ledger's files, one for each hour: their names, and what their lines add up to."""

from __future__ import annotations

import datetime
import time
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Final

import orjson

from scalellm_trt.errors import ArtefactError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

HOUR_S: Final = 3600
SUFFIX: Final = ".jsonl"
RAW_BEGINNING: Final = b"\n"
"""What a file begins with that has a line for each request."""
_FORMAT: Final = "%Y-%m-%dT%H"
_CHUNK_BYTES: Final = 64 * 1024

Key = tuple[str, str]
"""Tenant and model."""


@dataclass(slots=True, kw_only=True)
class Used:
    """What was used, in tokens; `cached_tokens` are part of `prompt_tokens`."""

    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0

    def add(self, other: Used) -> None:
        """Add another sum to this one."""
        for name in _COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))


_COUNTS: Final = tuple(field.name for field in fields(Used))


@dataclass(slots=True)
class Sums:
    """What some of the ledger adds up to.

    Attributes:
        num_unreadable: lines that say nothing: of a write that a full disk or a kill cut off.
    """

    used: dict[Key, Used]
    num_unreadable: int = 0

    def add(self, tenant: str, model: str, used: Used) -> None:
        """Add some of a tenant's usage of a model."""
        self.used.setdefault((tenant, model), Used()).add(used)


def file_name(hour: int) -> str:
    """Return the name of an hour's file; hours are counted from 1970, in UTC."""
    return datetime.datetime.fromtimestamp(hour * HOUR_S, datetime.timezone.utc).strftime(_FORMAT) + SUFFIX


def hours(directory: Path) -> Mapping[int, Path]:
    """Return the ledger's files by their hour, oldest first.

    Raises:
        ArtefactError: the directory cannot be read.
    """
    try:
        names = sorted(path.name for path in directory.iterdir() if path.suffix == SUFFIX)
    except OSError as error:
        hint = "ledger.directory in gateway.yaml says where it is; name it with --ledger or --config."
        message = f"{directory}: no ledger can be read: {error.strerror}"
        raise ArtefactError(message, hint=hint) from error
    found = {}
    for name in names:
        try:
            time_utc = datetime.datetime.strptime(name.removesuffix(SUFFIX), _FORMAT).replace(
                tzinfo=datetime.timezone.utc
            )
        except ValueError:
            continue
        found[int(time_utc.timestamp()) // HOUR_S] = directory / name
    return found


def add_up(paths: Iterable[Path], pause_s: float = 0.0) -> Sums:
    """Return what files add up to; one that another process compacts meanwhile counts once.

    Args:
        paths: the files.
        pause_s: how long to let other threads run after each piece of a file.
    """
    sums = Sums({})
    for path in paths:
        for line in _lines(path, pause_s):
            _add_line(line, sums)
    return sums


def _lines(path: Path, pause_s: float) -> Iterator[bytes]:
    rest = b""
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            *whole, rest = (rest + chunk).split(b"\n")
            yield from whole
            if pause_s:
                time.sleep(pause_s)
    yield rest


def _add_line(line: bytes, sums: Sums) -> None:
    if not line:
        return
    try:
        values = orjson.loads(line)
        used = Used(**{name: int(values[name]) for name in _COUNTS})
        sums.add(str(values["tenant"]), str(values["model"]), used)
    except (ValueError, KeyError, TypeError):
        sums.num_unreadable += 1


def line(tenant: str, model: str, used: Used) -> bytes:
    """Return the line, without its end, that says what was used."""
    return orjson.dumps({"tenant": tenant, "model": model, **{name: getattr(used, name) for name in _COUNTS}})

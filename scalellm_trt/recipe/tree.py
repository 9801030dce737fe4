"""A recipe file as values with places: what the YAML reader makes, what `extends` merges, what messages point at."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path

Scalar = str | int | float | bool | None
Plain = Scalar | list[object] | dict[str, "Plain"]

KeyPath = tuple[str, ...]
"""The names from the top of the file to a key; not a dotted string, because a stranger's key may hold dots."""

_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,79}")
_LONGEST_SHOWN = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A line, counted from 1, of a file named as the user wrote it."""

    file: Path
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """A single value."""

    place: Place
    value: Scalar


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequence:
    """A list. No recipe key takes one; those of other files are lists of single values."""

    place: Place
    items: tuple[Node, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A value that the YAML reader has already complained about."""

    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A mapping; `entries` keeps the order of the file."""

    place: Place
    entries: Mapping[str, Node]


Node = Leaf | Sequence | Refused | Section


def merge(base: Section, top: Section) -> Section:
    """Lay `top` over `base`: mappings merge key by key, everything else replaces what was there."""
    entries = dict(base.entries)
    for key, node in top.entries.items():
        below = entries.get(key)
        if isinstance(below, Section) and isinstance(node, Section):
            entries[key] = merge(below, node)
        else:
            entries[key] = node
    return Section(place=top.place, entries=entries)


def walk(section: Section, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Node]]:
    """Yield every node below `section` with its path, parents before children, in file order.

    An item of a list is found under its number, counted from 0.
    """
    for name, node in section.entries.items():
        yield (*path, name), node
        if isinstance(node, Section):
            yield from walk(node, (*path, name))
        elif isinstance(node, Sequence):
            for number, item in enumerate(node.items):
                yield (*path, name, str(number)), item


def plain(section: Section) -> dict[str, Plain]:
    """Return the values without their places; refused ones are left out."""
    return {name: _plain(node) for name, node in section.entries.items() if not isinstance(node, Refused)}


def _plain(node: Leaf | Sequence | Section) -> Plain:
    if isinstance(node, Section):
        return plain(node)
    if isinstance(node, Leaf):
        return node.value
    return [_plain(item) for item in node.items if not isinstance(item, Refused)]


def without(section: Section, paths: Collection[KeyPath], path: KeyPath = ()) -> Section:
    """Return `section` without the nodes at `paths`."""
    entries = {
        name: without(node, paths, (*path, name)) if isinstance(node, Section) else node
        for name, node in section.entries.items()
        if (*path, name) not in paths
    }
    return Section(place=section.place, entries=entries)


def dotted(path: KeyPath) -> str:
    """Write a path as messages do; a name that is no plain word is quoted, so that it cannot look like two."""
    return ".".join(name if _WORD.fullmatch(name) else shown(name) for name in path)


def describe(node: Node) -> str:
    """Say what stands there, in a recipe's own words and fit for a terminal."""
    if isinstance(node, Section):
        return "a mapping"
    if isinstance(node, Sequence):
        return "a list"
    return shown(node.value) if isinstance(node, Leaf) else "an unreadable value"


def shown(value: Scalar) -> str:
    """Write a value as YAML would, text always in quotes; long text is cut."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return repr(value if len(value) <= _LONGEST_SHOWN else f"{value[:_LONGEST_SHOWN]}…")
    return str(value)

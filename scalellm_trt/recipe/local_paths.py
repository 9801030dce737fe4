"""Relative paths in a recipe made absolute, seen from the file in which they are written."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from scalellm_trt.recipe.tree import Leaf, Section

if TYPE_CHECKING:
    from scalellm_trt.recipe.tree import KeyPath, Node

# Per key, the prefixes after which a path follows; the empty one is for values that are a path as they stand.
_PATH_PREFIXES: dict[KeyPath, tuple[str, ...]] = {
    ("model", "source"): ("gguf:", ""),
    ("quantization", "calibration", "source"): ("file:", "dir:"),
}


def anchored(tree: Section, folder: Path) -> Section:
    """Return `tree`, read from a file in `folder`, with absolute paths; values that are no path stay as they are."""
    for path, prefixes in _PATH_PREFIXES.items():
        tree = _replaced(tree, path, prefixes, folder)
    return tree


def _replaced(section: Section, path: KeyPath, prefixes: tuple[str, ...], folder: Path) -> Section:
    name, *below = path
    node = section.entries.get(name)
    changed: Node
    if below and isinstance(node, Section):
        changed = _replaced(node, tuple(below), prefixes, folder)
    elif not below and isinstance(node, Leaf) and isinstance(node.value, str):
        changed = dataclasses.replace(node, value=_absolute(node.value, prefixes, folder))
    else:
        return section
    return dataclasses.replace(section, entries={**section.entries, name: changed})


def _absolute(value: str, prefixes: tuple[str, ...], folder: Path) -> str:
    for prefix in prefixes:
        rest = value.removeprefix(prefix)
        is_path = bool(rest) if prefix else value in (".", "..") or value.startswith(("./", "../", "~/"))
        if value.startswith(prefix) and is_path:
            return f"{prefix}{folder.absolute() / _without_tilde(rest)}"
    return value


def _without_tilde(path: str) -> Path:
    try:
        return Path(path).expanduser() if path.startswith("~/") else Path(path)
    except RuntimeError:  # No home directory is known: whoever opens the path will say that it is not there.
        return Path(path)

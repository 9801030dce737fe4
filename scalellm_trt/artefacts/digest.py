"""SHA-256 of files, of values and of source code: what artefacts and cache keys are named by."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

READ_BYTES = 1 << 22


def of_file(path: Path) -> str:
    """Hash a file's content; hex."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as stream:
        while block := stream.read(READ_BYTES):
            digest.update(block)
    return digest.hexdigest()


def of_value(value: object) -> str:
    """Hash a value through its canonical JSON (sorted keys, no spaces); hex."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def of_named(digests: Mapping[str, str]) -> str:
    """Hash names with the digests of their contents, in the order of the names; hex."""
    return of_value(sorted(digests.items()))


def of_sources(paths: Iterable[Path], root: Path) -> str:
    """Hash source files, by their path below `root`; folders stand for every `.py` file in them."""
    files = [file for path in paths for file in (path.rglob("*.py") if path.is_dir() else [path])]
    return of_named({file.relative_to(root).as_posix(): of_file(file) for file in files})

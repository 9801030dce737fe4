"""Servers that an operator has taken out of use for a while; all workers of a gateway hold to it."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

FILE_NAME: Final = "draining.json"


class Draining:
    """Names of servers. With several workers they stand in a file that each looks at again and again."""

    def __init__(self, shared: Path | None) -> None:
        """Begin with none; `shared` is a directory of all workers, None where this one is alone."""
        self._file = None if shared is None else shared / FILE_NAME
        self._names: frozenset[str] = frozenset()

    @property
    def names(self) -> frozenset[str]:
        """The servers that get no new requests."""
        if self._file is not None and self._file.exists():
            self._names = frozenset(json.loads(self._file.read_text(encoding="utf-8")))
        return self._names

    def put(self, name: str, *, is_draining: bool) -> None:
        """Take a server out of use, or back into it."""
        self._names = self.names | {name} if is_draining else self.names - {name}
        if self._file is not None:
            temporary = self._file.with_suffix(f".{os.getpid()}")
            temporary.write_text(json.dumps(sorted(self._names)), encoding="utf-8")
            temporary.replace(self._file)

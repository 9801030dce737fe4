"""How far a download is, seen from outside: by how much a folder grows."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType

INTERVAL_S = 0.5


class DownloadProgress:
    """While the context is open, tell twice a second which share of `total_bytes` has arrived in `folder`.

    The hub's client has no progress callback that all of its versions and transports share; all of them write into
    the folder as they go.
    """

    def __init__(self, folder: Path, total_bytes: int, progress: Callable[[float], None]) -> None:
        """Watch `folder`, which need not exist yet."""
        self._folder = folder
        self._total_bytes = total_bytes
        self._progress = progress
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="download-progress", daemon=True)

    def __enter__(self) -> None:
        """Start to watch."""
        self._start_bytes = self._bytes()
        self._thread.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop to watch; a download that came to its end is complete, whatever was counted."""
        self._done.set()
        self._thread.join()
        if kind is None:
            self._progress(1.0)

    def _watch(self) -> None:
        while not self._done.wait(INTERVAL_S):
            if self._total_bytes:
                self._progress(min(1.0, (self._bytes() - self._start_bytes) / self._total_bytes))

    def _bytes(self) -> int:
        total = 0
        try:
            for path in self._folder.iterdir():
                total += path.stat().st_size
        except OSError:
            pass  # a file was renamed while we looked: the next look counts it
        return total

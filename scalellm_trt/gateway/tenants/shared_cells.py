"""What all workers of a gateway know of each tenant: what its buckets hold, how many of its requests are open.

Numbers in memory that forked workers share, a row for each tenant, changed under a lock of the kernel on that row. The
kernel takes the lock from a worker that is killed; of what the worker had open its own column tells, which is emptied.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from typing import Final

_SIZE: Final = 8
_FIXED: Final = 4


class Row:
    """A tenant's numbers, as one worker sees them. To be used in a `with` block of its own, which does not wait."""

    def __init__(self, cells: memoryview[float], start: int, num_workers: int, worker: int, lock_file: int) -> None:
        """See `SharedCells.row`."""
        self._cells, self._start = cells, start
        self._open = range(start + _FIXED, start + _FIXED + num_workers)
        self._own, self._lock_file = start + _FIXED + worker, lock_file
        self._is_shared = num_workers > 1

    def __enter__(self) -> None:
        """Keep other workers out: 1.3 microseconds, and nothing where there are none."""
        if self._is_shared:
            fcntl.lockf(self._lock_file, fcntl.LOCK_EX, 1, self._start)

    def __exit__(self, *ignored: object) -> None:
        """Let them in again."""
        if self._is_shared:
            fcntl.lockf(self._lock_file, fcntl.LOCK_UN, 1, self._start)

    def read(self, number: int) -> tuple[float, float]:
        """Return what bucket `number` (0 or 1) held, and when."""
        place = self._start + 2 * number
        return self._cells[place], self._cells[place + 1]

    def write(self, number: int, level: float, now_s: float) -> None:
        """Note what bucket `number` holds now."""
        place = self._start + 2 * number
        self._cells[place], self._cells[place + 1] = level, now_s

    def num_open(self) -> int:
        """Return the open requests of all workers."""
        return int(sum(self._cells[place] for place in self._open))

    def add_open(self, change: int) -> None:
        """Count a request of this worker that comes or goes."""
        self._cells[self._own] += change


class SharedCells:
    """The rows of all tenants. To be made before workers are forked."""

    def __init__(self, num_rows: int, num_workers: int = 1) -> None:
        """Begin with zeros."""
        self._num_rows, self._num_workers = num_rows, num_workers
        self._width = _FIXED + num_workers
        self._cells = memoryview(mmap.mmap(-1, max(num_rows, 1) * self._width * _SIZE)).cast("d")
        # Locks are on bytes of a file, which stays empty, and open as long as the process lives.
        self._lock_file = os.memfd_create("scalellm-tenants") if num_workers > 1 else -1

    def row(self, number: int, worker: int = 0) -> Row:
        """Return a tenant's row for one worker."""
        return Row(self._cells, number * self._width, self._num_workers, worker, self._lock_file)

    def forget(self, worker: int) -> None:
        """Forget what a worker that has ended had open."""
        for number in range(self._num_rows):
            self._cells[number * self._width + _FIXED + worker] = 0.0

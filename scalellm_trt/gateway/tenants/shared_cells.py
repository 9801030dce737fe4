"""What all workers of a gateway know of each tenant: what its buckets hold, how many of its requests are open.

Numbers in memory that forked workers share, a row for each tenant, changed under a lock of the kernel on that row. The
kernel takes the lock from a worker that is killed; of what the worker had open its own column tells, which is emptied.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from typing import TYPE_CHECKING, Final

from scalellm_trt.gateway.tenants.kept_levels import fleeting_levels

if TYPE_CHECKING:
    from scalellm_trt.gateway.tenants.kept_levels import KeptLevels

_SIZE: Final = 8


class Row:
    """A tenant's numbers, as one worker sees them. To be used in a `with` block of its own, which does not wait."""

    def __init__(
        self, levels: memoryview[float], start: int, num_open: memoryview[float], worker: int, lock_file: int
    ) -> None:
        """Use `levels` from `start` on, and `num_open` of each worker; see `SharedCells.row`."""
        self._cells, self._start = levels, start
        self._open, self._own, self._lock_file = num_open, worker, lock_file
        self._is_shared = len(num_open) > 1

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
        return int(sum(self._open))

    def add_open(self, change: int) -> None:
        """Count a request of this worker that comes or goes."""
        self._open[self._own] += change


class SharedCells:
    """The rows of all tenants. To be made before workers are forked."""

    def __init__(self, num_rows: int, num_workers: int = 1, levels: KeptLevels | None = None) -> None:
        """Begin with nothing open, and with `levels`; None is zeros that end with this process."""
        self._num_rows, self._num_workers = num_rows, num_workers
        self._levels = levels or fleeting_levels(num_rows)
        self._open = memoryview(mmap.mmap(-1, max(num_rows, 1) * num_workers * _SIZE)).cast("d")
        # Locks are on bytes of a file, which stays empty, and open as long as the process lives.
        self._lock_file = os.memfd_create("scalellm-tenants") if num_workers > 1 else -1

    def row(self, number: int, worker: int = 0) -> Row:
        """Return a tenant's row for one worker."""
        num_open = self._open[number * self._num_workers : (number + 1) * self._num_workers]
        return Row(self._levels.cells, self._levels.start(number), num_open, worker, self._lock_file)

    def claim(self, number: int, name: str) -> bool:
        """Let a row be a tenant's; return whether it holds what the tenant had left before a restart."""
        return self._levels.claim(number, name)

    def forget(self, worker: int) -> None:
        """Forget what a worker that has ended had open."""
        for number in range(self._num_rows):
            self._open[number * self._num_workers + worker] = 0.0

"""What tenants' buckets hold, in memory that workers share; where there is a ledger, in a file beside it.

The kernel keeps a mapped file over `kill -9`, which costs nothing, so a gateway that is started again goes on with
what was left of each minute. After a reboot all is full: times are those of a clock that begins anew then.
"""

from __future__ import annotations

import fcntl
import math
import mmap
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from scalellm_trt.gateway import request_log

if TYPE_CHECKING:
    from collections.abc import Mapping

FILE_NAME: Final = "limits"
NUM_LEVELS: Final = 4
"""Of a tenant: what each of two buckets held, and when."""
_MAGIC: Final = b"scalellm limits 1 "
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_HEADER_BYTES: Final = 64
_NAME_BYTES: Final = 64
_DOUBLE: Final = 8
_ROW_BYTES: Final = _NAME_BYTES + NUM_LEVELS * _DOUBLE
_LOCK_TIMEOUT_S: Final = 1.0
"""A gateway that was killed a moment ago may still have workers that hold the file."""


class KeptLevels:
    """A row of levels for each tenant.

    Attributes:
        cells: all rows; those of row n begin at `start(n)`.
    """

    def __init__(self, memory: mmap.mmap, before: Mapping[str, tuple[float, ...]], descriptor: int = -1) -> None:
        """Use `memory`; see `kept_levels` and `fleeting_levels`."""
        self._memory, self._before, self._descriptor = memory, before, descriptor
        self.cells = memoryview(memory).cast("d")

    @staticmethod
    def start(row: int) -> int:
        """Return the place of a row's first level in `cells`."""
        return (_HEADER_BYTES + row * _ROW_BYTES + _NAME_BYTES) // _DOUBLE

    def claim(self, row: int, name: str) -> bool:
        """Let a row be a tenant's; return whether it holds what the tenant had left before the gateway was started."""
        begin = _HEADER_BYTES + row * _ROW_BYTES
        self._memory[begin : begin + _NAME_BYTES] = name.encode().ljust(_NAME_BYTES, b"\0")
        levels = self._before.get(name)
        if levels is None:
            return False
        for number, value in enumerate(levels):
            self.cells[self.start(row) + number] = value
        return True


def fleeting_levels(num_rows: int) -> KeptLevels:
    """Return levels that end with the gateway."""
    return KeptLevels(mmap.mmap(-1, _HEADER_BYTES + num_rows * _ROW_BYTES), {})


def kept_levels(file: Path, num_rows: int) -> KeptLevels:
    """Return levels in a file, which knows those of before; fleeting ones where it cannot be used, or another does."""
    size = _HEADER_BYTES + num_rows * _ROW_BYTES
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _lock(descriptor)
        before = _read(os.pread(descriptor, os.fstat(descriptor).st_size, 0))
        os.ftruncate(descriptor, 0)
        # Space that is not there must be missed now: later the kernel would kill whoever writes.
        os.posix_fallocate(descriptor, 0, size)
        memory = mmap.mmap(descriptor, size)
    except OSError as error:
        os.close(descriptor)
        fields = {"file": str(file), "error": error.strerror or str(error)}
        request_log.LOGGER.warning("limits begin anew: what was left of them is not known", extra={"fields": fields})
        return fleeting_levels(num_rows)
    memory[:_HEADER_BYTES] = _header().ljust(_HEADER_BYTES, b"\0")
    # The lock is held as long as the descriptor is open, here and in workers.
    return KeptLevels(memory, before, descriptor)


def _header() -> bytes:
    return _MAGIC + _BOOT_ID.read_bytes().strip()


def _lock(descriptor: int) -> None:
    deadline_s = time.monotonic() + _LOCK_TIMEOUT_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.02)
        else:
            return


def _read(content: bytes) -> dict[str, tuple[float, ...]]:
    """Return the levels of each tenant that a file of this boot knows."""
    if content[:_HEADER_BYTES].rstrip(b"\0") != _header():
        return {}
    found, now_s = {}, time.monotonic()
    for begin in range(_HEADER_BYTES, len(content) - _ROW_BYTES + 1, _ROW_BYTES):
        name = content[begin : begin + _NAME_BYTES].rstrip(b"\0").decode(errors="replace")
        levels = tuple(memoryview(content[begin + _NAME_BYTES : begin + _ROW_BYTES]).cast("d"))
        is_sound = all(level >= 0 and -math.inf < then_s <= now_s for level, then_s in (levels[:2], levels[2:]))
        if name and is_sound:
            found[name] = levels
    return found

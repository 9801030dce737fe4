"""The memory of a process tree over time, and whether it grows."""

from __future__ import annotations

import contextlib
import statistics
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

FIELDS = {"RssAnon": "anonymous", "RssShmem": "shared"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Bytes in memory of all processes together, `seconds` after the watch began."""

    seconds: float
    anonymous: int
    shared: int


def read(pid: int, seconds: float = 0.0) -> Sample:
    """Add up RssAnon and RssShmem of a process and everything that it started."""
    totals = dict.fromkeys(FIELDS.values(), 0)
    process = psutil.Process(pid)
    for each in (process, *process.children(recursive=True)):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{each.pid}/status").read_text().splitlines():
                name, _, rest = line.partition(":")
                if name in FIELDS:
                    totals[FIELDS[name]] += int(rest.split()[0]) * 1024
    return Sample(seconds=seconds, **totals)


@contextlib.contextmanager
def watch(pid: int, every_s: float) -> Iterator[list[Sample]]:
    """Collect a sample every so often until the block ends."""
    samples: list[Sample] = []
    is_over = threading.Event()
    started = time.monotonic()

    def collect() -> None:
        while not is_over.wait(every_s):
            samples.append(read(pid, time.monotonic() - started))

    thread = threading.Thread(target=collect, name="memory")
    thread.start()
    try:
        yield samples
    finally:
        is_over.set()
        thread.join()


def growth_bytes(samples: Sequence[Sample]) -> int:
    """Return by how much the median of anonymous memory is higher in the last third than in the first.

    Raises:
        ValueError: there are fewer than three samples.
    """
    third = len(samples) // 3
    if not third:
        raise ValueError("at least three samples are needed")
    first, last = (
        statistics.median(sample.anonymous for sample in part) for part in (samples[:third], samples[-third:])
    )
    return int(last - first)

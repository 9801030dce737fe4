"""Ask about processes that a test started, or that these started."""

from __future__ import annotations

import time
from pathlib import Path


def has_ended(pid: int, *, within_s: float = 30.0) -> bool:
    """Tell whether a process ends within a time; a zombie that its new parent does not reap has ended."""
    deadline = time.monotonic() + within_s
    while True:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX":
                return True
        except OSError:
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)

"""SIGHUP means two things: a terminal was closed, which ends what runs in it, or somebody wants the files read again.

A process that has lost its terminal, or is losing it, was told the first; one that still has it, or never had one as
under systemd or in a container, the second.
"""

from __future__ import annotations

import os
from typing import Final

SETTLE_S: Final = 0.3
"""The kernel may send the signal a moment before it takes the terminal away."""


class Hangup:
    """Knows whether there was a terminal when the process began."""

    def __init__(self) -> None:
        """Look for one."""
        self._had_terminal = has_terminal()

    @property
    def is_end(self) -> bool:
        """Whether the terminal is gone; to be asked `SETTLE_S` after the signal."""
        return self._had_terminal and not has_terminal()


def has_terminal() -> bool:
    """Tell whether this process has a controlling terminal."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True

"""A process of its own that ends a command's process group when the process that started the command is gone.

Run as `python -I -S watchdog.py PARENT GROUP GRACE_S [SHM_PREFIX [PROGRAM ARGUMENT…]]` by the command's parent;
standard library only. The program is run last: it ends what is no process of the group, as a container is.
A signal sent by the kernel on the parent's death would reach the server, not the python backend's stubs: these
notice a dead server only once somebody has reaped it, which in a container without an init never happens.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")
POLL_S = 0.1
LAST_TIMEOUT_S = 60.0
_STATE, _GROUP, _SESSION = 0, 2, 3  # fields of /proc/PID/stat, counted from the one behind the name


def remove_shared_memory(prefix: str) -> None:
    """Remove the shared memory that a killed server could not."""
    for region in SHARED_MEMORY.glob(f"{prefix}*"):
        with contextlib.suppress(OSError):
            region.unlink()


def wait_for_end(parent: int) -> None:
    """Return when `parent`, which must be this process's parent, has ended in whatever way."""
    try:
        descriptor = os.pidfd_open(parent)
    except OSError:  # an old kernel, or it has ended already
        while os.getppid() == parent:
            time.sleep(POLL_S)
        return
    # It may have ended before the descriptor was opened, and its number be somebody else's now.
    while os.getppid() == parent:
        if select.select([descriptor], [], [])[0]:
            return


def end_group(group: int, grace_s: float) -> None:
    """Ask the leader of a process group to end, then kill whatever is left of its session."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(group, signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while time.monotonic() < deadline and not _has_ended(group):
        time.sleep(POLL_S)
    kill_session(group)


def kill_session(leader: int) -> None:
    """Kill every process of a session: mpirun gives each of its ranks a process group of its own."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and _field(int(entry.name), _SESSION) == str(leader):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(int(entry.name), signal.SIGKILL)


def has_living_members(group: int) -> bool:
    """Tell whether a process group has a member that runs: one that nobody reaps stays in its group for ever."""
    pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal())
    return any(_field(pid, _GROUP) == str(group) and not _has_ended(pid) for pid in pids)


def _has_ended(pid: int) -> bool:
    """Tell whether a process is gone; a zombie, which nobody may ever reap, is."""
    return _field(pid, _STATE) in (None, "Z", "X")


def _field(pid: int, index: int) -> str | None:
    """Return a field of /proc/PID/stat behind the program's name, which may hold spaces; None where it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return stat.rpartition(")")[2].split()[index]


def main(arguments: list[str]) -> None:
    """Watch until the parent ends, then end the group."""
    parent, group, grace_s = int(arguments[0]), int(arguments[1]), float(arguments[2])
    # A terminal's Ctrl-C is the parent's to handle.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    wait_for_end(parent)
    end_group(group, grace_s)
    for shm_prefix in arguments[3:4]:
        remove_shared_memory(shm_prefix)
    if last := arguments[4:]:
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            subprocess.run(last, timeout=LAST_TIMEOUT_S, check=False)


if __name__ == "__main__":
    main(sys.argv[1:])

"""A child and a time limit in; its exit status the moment it ends."""

from __future__ import annotations

import math
import os
import select
from subprocess import Popen, TimeoutExpired


def wait(child: Popen[bytes], timeout_s: float | None) -> int:
    """Return the exit status of `child`, as `Popen.wait` does.

    `Popen.wait` with a limit looks again every 50 ms; here the kernel wakes us. A kernel before 5.3 and some sandboxes
    have no such file descriptor: there it is left to `Popen.wait`.

    Raises:
        TimeoutExpired: it still runs after `timeout_s` seconds.
    """
    if timeout_s is None or child.poll() is not None:
        return child.wait()
    try:
        descriptor = os.pidfd_open(child.pid)
    except OSError:
        return child.wait(timeout=timeout_s)
    try:
        ended = select.poll()
        ended.register(descriptor, select.POLLIN)
        if not ended.poll(math.ceil(timeout_s * 1000)):
            raise TimeoutExpired(child.args, timeout_s)
    finally:
        os.close(descriptor)
    return child.wait()

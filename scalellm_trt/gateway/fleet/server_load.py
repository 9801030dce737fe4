"""What a server is doing for us: counted by each worker for itself, seen by all of them.

Where workers do not know of each other, each sends its requests to the server that is the least loaded by its own,
and the threshold between groups holds for each alone. So the counts lie in memory that forked workers share: each
writes its own column, without a lock, and adds up all.
"""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
from typing import Final, Protocol

NUM_ROWS: Final = 4096
"""Servers of which workers know together, those that have left included; more are counted by each worker alone."""
_KEY_BYTES: Final = 16
_SIZE: Final = 8


class ServerLoad(Protocol):
    """Requests and tokens at one server.

    Attributes:
        own_running: requests of this worker.
    """

    own_running: int

    def add(self, num_requests: int, num_tokens: int) -> None:
        """Count what this worker has begun, or with negative numbers ended."""
        ...

    def num_running(self) -> int:
        """Return the requests of all workers."""
        ...

    def num_tokens(self) -> int:
        """Return the tokens, prompts included, that these requests may still take; counted when they begin."""
        ...


class OwnLoad:
    """The load of a server that nobody else asks."""

    __slots__ = ("_num_tokens", "own_running")

    def __init__(self) -> None:
        """Begin with nothing."""
        self.own_running = self._num_tokens = 0

    def add(self, num_requests: int, num_tokens: int) -> None:
        """See `ServerLoad`."""
        self.own_running += num_requests
        self._num_tokens += num_tokens

    def num_running(self) -> int:
        """See `ServerLoad`."""
        return self.own_running

    def num_tokens(self) -> int:
        """See `ServerLoad`."""
        return self._num_tokens


class SharedLoads:
    """The loads of all servers. To be made before workers are forked."""

    def __init__(self, num_workers: int) -> None:
        """Begin with nothing at any server."""
        self._num_workers = num_workers
        self._keys = mmap.mmap(-1, NUM_ROWS * _KEY_BYTES)
        self._counts = memoryview(mmap.mmap(-1, NUM_ROWS * 2 * num_workers * _SIZE)).cast("q")
        self._lock_file = os.memfd_create("scalellm-servers")

    def of(self, url: str, worker: int) -> ServerLoad:
        """Return the load of a server, as `worker` counts it."""
        row = self._row(hashlib.blake2b(url.encode(), digest_size=_KEY_BYTES).digest())
        if row is None:
            return OwnLoad()
        start, size = row * 2 * self._num_workers, self._num_workers
        return _SharedLoad(self._counts[start : start + size], self._counts[start + size : start + 2 * size], worker)

    def forget(self, worker: int) -> None:
        """Forget what a worker that has ended was doing."""
        for place in range(worker, NUM_ROWS * 2 * self._num_workers, self._num_workers):
            if self._counts[place]:
                self._counts[place] = 0

    def _row(self, key: bytes) -> int | None:
        """Return the row that has a server's key, a free one if none has it, None if all are taken."""
        fcntl.lockf(self._lock_file, fcntl.LOCK_EX)
        try:
            for begin in range(0, NUM_ROWS * _KEY_BYTES, _KEY_BYTES):
                found = self._keys[begin : begin + _KEY_BYTES]
                if found == bytes(_KEY_BYTES):
                    self._keys[begin : begin + _KEY_BYTES] = key
                elif found != key:
                    continue
                return begin // _KEY_BYTES
            return None
        finally:
            fcntl.lockf(self._lock_file, fcntl.LOCK_UN)


class _SharedLoad:
    """One server's load; `own_running` is this worker's, which may have two members of one address for a while."""

    __slots__ = ("_requests", "_tokens", "_worker", "own_running")

    def __init__(self, requests: memoryview[int], tokens: memoryview[int], worker: int) -> None:
        self._requests, self._tokens, self._worker = requests, tokens, worker
        self.own_running = 0

    def add(self, num_requests: int, num_tokens: int) -> None:
        self.own_running += num_requests
        self._requests[self._worker] += num_requests
        self._tokens[self._worker] += num_tokens

    def num_running(self) -> int:
        return sum(self._requests)

    def num_tokens(self) -> int:
        return sum(self._tokens)

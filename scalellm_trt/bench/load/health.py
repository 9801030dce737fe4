"""Whether a client process keeps up: how late its timers come, and how much of a core it takes."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

import numpy as np

from scalellm_trt.bench.run import ClientHealth

if TYPE_CHECKING:
    from collections.abc import Sequence

TICK_S: Final = 0.02
MAX_LAGS: Final = 20_000


class Watch:
    """Measures an event loop from its making until `stop`."""

    def __init__(self, *, loop_thread_only: bool) -> None:
        """Begin; an engine in the same process works in threads of its own, which are not the client."""
        self._clock = time.thread_time if loop_thread_only else time.process_time
        self._began_s, self._cpu_s = time.monotonic(), self._clock()
        self._lags_s: list[float] = []
        self._task = asyncio.get_running_loop().create_task(self._tick())

    def stop(self) -> tuple[float, tuple[float, ...]]:
        """Return the share of a core, and the lags."""
        self._task.cancel()
        elapsed_s = max(time.monotonic() - self._began_s, 1e-9)
        return (self._clock() - self._cpu_s) / elapsed_s, tuple(self._lags_s)

    async def _tick(self) -> None:
        while len(self._lags_s) < MAX_LAGS:
            due_s = time.monotonic() + TICK_S
            await asyncio.sleep(TICK_S)
            self._lags_s.append(max(0.0, time.monotonic() - due_s))


def merged(shares: Sequence[float], lags_s: Sequence[Sequence[float]], send_delays_s: Sequence[float]) -> ClientHealth:
    """Return what is written down of the processes that made a cell's load."""
    all_lags = np.array([lag for of_process in lags_s for lag in of_process] or [0.0]) * 1000
    return ClientHealth(
        num_processes=len(shares),
        cpu_share=round(max(shares, default=0.0), 4),
        loop_lag_p50_ms=round(float(np.percentile(all_lags, 50)), 3),
        loop_lag_p99_ms=round(float(np.percentile(all_lags, 99)), 3),
        send_delay_p99_ms=round(float(np.percentile(np.array(send_delays_s or [0.0]) * 1000, 99)), 3),
    )

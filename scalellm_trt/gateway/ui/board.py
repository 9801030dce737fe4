"""Where workers of one gateway lay down their reports, so that any of them can speak for all.

Files and not questions: a worker that hangs does not stop the page, it is missing there.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Final

import orjson

from scalellm_trt.gateway.ui.window import Counts, LastError, Report, Series

if TYPE_CHECKING:
    from pathlib import Path

STALE_S: Final = 5.0
"""A worker reports each second; one that has not for so long hangs, or is gone."""
_PREFIX: Final = "report-"


class Board:
    """One worker's side of it."""

    def __init__(self, directory: Path) -> None:
        """Use a directory that this gateway's workers share; each is known by its process."""
        self._directory, self._own = directory, f"{_PREFIX}{os.getpid()}"

    def post(self, report: Report) -> None:
        """Lay down this worker's report, in place of the one before."""
        file = self._directory / f"{self._own}.new"
        file.write_bytes(orjson.dumps(report, option=orjson.OPT_NON_STR_KEYS))
        file.replace(self._directory / f"{self._own}.json")

    def others(self) -> list[Report]:
        """Return what the other workers say, without those that have gone silent, whose files are removed."""
        found = []
        for file in sorted(self._directory.glob(f"{_PREFIX}*.json")):
            if file.stem == self._own:
                continue
            try:
                is_stale = time.time() - file.stat().st_mtime > STALE_S
                if is_stale:
                    file.unlink()
                else:
                    found.append(_report(file.read_bytes()))
            except FileNotFoundError:
                # Another worker has just removed it.
                continue
        return found


def _report(data: bytes) -> Report:
    raw = orjson.loads(data)
    return Report(
        **{
            **raw,
            "total": Counts(**raw["total"]),
            "minute": Counts(**raw["minute"]),
            "series": Series(**raw["series"]),
            "ttft": {int(number): count for number, count in raw["ttft"].items()},
            "itl": {int(number): count for number, count in raw["itl"].items()},
            "last_error": None if raw["last_error"] is None else LastError(**raw["last_error"]),
        }
    )

"""Old hours of the ledger made small: a line for each tenant and model in place of one for each request."""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING, Final

from scalellm_trt.errors import ArtefactError
from scalellm_trt.gateway import request_log
from scalellm_trt.gateway.tenants.ledger_files import RAW_BEGINNING, add_up, hours, line

if TYPE_CHECKING:
    from pathlib import Path

MIN_AGE_HOURS: Final = 2
"""An hour's file is written to for a moment after the hour, by requests that took its name before."""
PAUSE_S: Final = 0.005
"""Longer than the event loop's own work: a thread that computes keeps the interpreter's lock for milliseconds."""


def compact(directory: Path, hour: int) -> None:
    """Replace each file that is old in `hour`, at once; what is interrupted is begun anew by the next.

    Several processes may do it: they write the same. A file with lines that cannot be read is left as it is.
    """
    try:
        for path in [path for old, path in hours(directory).items() if old <= hour - MIN_AGE_HOURS]:
            _compact(path)
    except (OSError, ArtefactError) as error:
        request_log.LOGGER.error("the ledger cannot be compacted", extra={"fields": {"error": str(error)}})


def _compact(path: Path) -> None:
    with path.open("rb") as file:
        if file.read(1) != RAW_BEGINNING:
            return
    sums = add_up([path], PAUSE_S)
    if sums.num_unreadable:
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        temporary.write_bytes(b"".join(line(*key, used) + b"\n" for key, used in sums.used.items()))
        temporary.chmod(path.stat().st_mode & 0o777)
        temporary.replace(path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()

"""The usage of every request on disk before its client sees the end of the answer: a line appended to the hour's file.

A `write` that has returned is the kernel's to keep: `kill -9` loses nothing of it, and it costs a microsecond where a
database's commit costs twenty and now and then milliseconds, in which every stream would stand still. Workers append to
the same file; the kernel keeps their lines whole. A power cut may cost the last half minute.

A line begins with a line break too, so that a half one, of a full disk, spoils no other. `usage` reads the files.
"""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

from scalellm_trt.errors import Problem, RecipeError
from scalellm_trt.gateway import request_log
from scalellm_trt.gateway.tenants import compaction, ledger_files
from scalellm_trt.gateway.tenants.ledger_files import HOUR_S, Used, file_name

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from scalellm_trt.gateway.replies import Usage


class Ledger:
    """Writes the usage of one process."""

    def __init__(self, directory: Path, clock: Callable[[], float] = time.time) -> None:
        """Write into `directory`; `clock` returns seconds since 1970."""
        self._directory, self._clock = directory, clock
        self._hour, self._file = -1, -1

    def note(self, tenant: str, model: str, usage: Usage) -> None:
        """Add one request. Where that is impossible, the log gets the line: an answer is worth more than its price."""
        used = Used(
            requests=1,
            prompt_tokens=usage.prompt_tokens,
            cached_tokens=usage.cached_tokens or 0,
            completion_tokens=usage.completion_tokens,
        )
        line = ledger_files.line(tenant, model, used)
        try:
            os.write(self._now(), ledger_files.RAW_BEGINNING + line + b"\n")
        except OSError as error:
            fields = {"error": error.strerror, "line": line.decode()}
            request_log.LOGGER.error("the ledger cannot be written", extra={"fields": fields})

    def close(self) -> None:
        """Close the hour's file."""
        if self._file >= 0:
            os.close(self._file)
            self._hour, self._file = -1, -1

    def _now(self) -> int:
        """Return the open file of this hour."""
        hour = int(self._clock()) // HOUR_S
        if hour != self._hour:
            self.close()
            threading.Thread(target=compaction.compact, args=(self._directory, hour), daemon=True).start()
            path = self._directory / file_name(hour)
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            self._hour = hour
        return self._file


def prepare(directory: Path) -> None:
    """Make the directory, and see that a ledger can be written there.

    Raises:
        RecipeError: it cannot.
    """
    probe = directory / f".probe.{os.getpid()}"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        message = f"{directory} cannot be written: {error.strerror}"
        hint = "Name a directory of the gateway's own user, on a disk of this machine."
        raise RecipeError([Problem(key="ledger.directory", message=message, hint=hint)]) from error

"""Switch directories that others may be reading: each is at all times the old one or the new one, whole.

In: directories staged on the same file system, outside the root that others read. Out: the root with the new
ones, the old ones set aside. `begin` writes a journal; from then on the switch can only go forward, and whoever
comes next finishes it with `finish`, however often it was interrupted:

    begin ─► for each directory: exchange(staged, live) ─► staged (now the old one) to retired ─► done ─► forget

An existing directory is switched by renameat2(RENAME_EXCHANGE): there is no moment without it. Where the file
system cannot do that (NFS, some FUSE), two renames take its place: a reader may find the directory missing for
some microseconds, never half written, and an interrupted switch is finished in the same way.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from scalellm_trt.artefacts import manifest
from scalellm_trt.errors import ArtefactError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    Trace = Callable[[str], None]
    """Called with a step's name just before the step changes the disk; tests end the process there."""

MARK_NAME = "published.json"
JOURNAL_NAME = "journal.json"
JOURNAL_SCHEMA = 1

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_CANNOT_EXCHANGE = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}


def untraced(step: str) -> None:
    """Do nothing: the trace outside of tests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Switch:
    """One directory that changes.

    Attributes:
        live: its name in the root.
        staged: the new one, relative to the state directory; None takes the directory away.
        mark: the transaction that the new one's mark names; tells it from the old one. None when `staged` is.
        retired: where the old one goes, relative to the state directory; nothing is there yet.
    """

    live: str
    staged: str | None
    mark: str | None
    retired: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Journal:
    """A decided switch of several directories.

    Attributes:
        switches: what changes, in this order.
        outcome: the text of a file in the root that is replaced once all directories are switched, by its name.
    """

    switches: tuple[Switch, ...]
    outcome: Mapping[str, str]


def exchange(one: Path, other: Path) -> bool:
    """Let two existing paths of one file system change places in a single step.

    Returns:
        False when the file system or the kernel cannot do that; then nothing has happened.

    Raises:
        OSError: it failed for another reason.
    """
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:  # a C library without the call
        return False
    if renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in _CANNOT_EXCHANGE:
        return False
    raise OSError(code, os.strerror(code), str(one), None, str(other))


def write_mark(directory: Path, transaction: str, **details: str) -> None:
    """Name the transaction that `directory` belongs to, in a file in it."""
    text = json.dumps({"transaction": transaction, **details}, indent=1) + "\n"
    (directory / MARK_NAME).write_text(text, encoding="utf-8")


def read_mark(directory: Path) -> str | None:
    """Return the transaction that `directory` belongs to; None where there is no directory or no mark."""
    try:
        transaction = json.loads((directory / MARK_NAME).read_text(encoding="utf-8"))["transaction"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return transaction if isinstance(transaction, str) else None


def begin(journal: Journal, state_dir: Path) -> None:
    """Decide the switch: once this returns, `finish` carries it out, in this process or in a later one."""
    text = json.dumps({"schema": JOURNAL_SCHEMA, **asdict(journal)}, indent=1) + "\n"
    manifest.replace_text(state_dir / JOURNAL_NAME, text)


def pending(state_dir: Path) -> Journal | None:
    """Return the switch that was decided and not finished.

    Raises:
        ArtefactError: the journal cannot be read.
    """
    path = state_dir / JOURNAL_NAME
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        if raw["schema"] != JOURNAL_SCHEMA:
            message = f"{path}: was written by another version of scalellm-trt"
            raise ArtefactError(message, hint="Finish with that version, or remove the file and build again.")
        return Journal(switches=tuple(Switch(**fields) for fields in raw["switches"]), outcome=raw["outcome"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = f"{path}: an interrupted switch cannot be read: {error}"
        raise ArtefactError(message, hint="Remove the file and build each service again.") from error


def finish(root: Path, state_dir: Path, *, trace: Trace = untraced) -> bool:
    """Carry out the decided switch, from wherever it was interrupted; nothing happens when there is none.

    Returns:
        Whether there was one.

    Raises:
        ArtefactError: a staged directory is gone.
        OSError: the file system refused; the journal stays, and the next call goes on.
    """
    journal = pending(state_dir)
    if journal is None:
        return False
    for switch in journal.switches:
        _apply(switch, root, state_dir, trace)
    for name, text in journal.outcome.items():
        # Not written beside its target: an interrupt would leave a temporary file in the root.
        trace(f"write {name}")
        manifest.replace_text(state_dir / name, text)
        (state_dir / name).replace(root / name)
        manifest.sync_directory(root)
    trace("forget the journal")
    (state_dir / JOURNAL_NAME).unlink()
    manifest.sync_directory(state_dir)
    return True


def _apply(switch: Switch, root: Path, state_dir: Path, trace: Trace) -> None:
    live, retired = root / switch.live, state_dir / switch.retired
    retired.parent.mkdir(parents=True, exist_ok=True)
    if switch.staged is None:
        if _is_there(live):
            trace(f"retire {switch.live}")
            _rename(live, retired)
        return
    staged = state_dir / switch.staged
    if read_mark(live) != switch.mark:
        if not _is_there(staged):
            message = f"{staged}: the staged directory of an interrupted switch is gone"
            raise ArtefactError(message, hint=f"Remove {state_dir / JOURNAL_NAME} and build again.")
        trace(f"switch {switch.live}")
        _replace(staged, live, retired, trace)
    if _is_there(staged):
        trace(f"retire {switch.live}")
        _rename(staged, retired)


def _replace(staged: Path, live: Path, retired: Path, trace: Trace) -> None:
    if not _is_there(live):
        _rename(staged, live)
    elif exchange(staged, live):
        manifest.sync_directory(live.parent)
        manifest.sync_directory(staged.parent)
    else:
        _rename(live, retired)
        trace(f"place {live.name}")
        _rename(staged, live)


def _rename(source: Path, target: Path) -> None:
    source.rename(target)
    manifest.sync_directory(target.parent)
    manifest.sync_directory(source.parent)


def _is_there(path: Path) -> bool:
    return os.path.lexists(path)

"""`manifest.json`: what a stage made, from what, and how each file looked when it was done."""

from __future__ import annotations

import datetime
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from scalellm_trt.artefacts import digest
from scalellm_trt.artefacts.types import Stamp
from scalellm_trt.errors import ArtefactError

if TYPE_CHECKING:
    from collections.abc import Mapping

MANIFEST_NAME = "manifest.json"
CALIBRATION_RECORD = "calibration.json"
"""A file of a calibrated checkpoint, one flat JSON object: which samples and libraries its scales came from."""
SCHEMA = 1

Scalar = str | int | float | bool | None
StageName = Literal["quantize", "compile", "assemble"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRecord:
    """A file when its stage was done: size and mtime answer "unchanged?" quickly, the digest for certain."""

    size: int
    mtime_ns: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Contents of `manifest.json`.

    Attributes:
        stage: which stage made the directory.
        key: SHA-256 of `inputs`.
        inputs: everything that the result depends on, flat, by dotted name.
        files: path below the directory → how it looked.
        seconds: how long the stage ran.
        created: ISO 8601, UTC.
        stamp: of an engine that loads on one kind of card only.
        calibration: of a calibrated checkpoint: source, number, length, seed and digest of the samples really used.
    """

    stage: StageName
    key: str
    inputs: Mapping[str, Scalar]
    files: Mapping[str, FileRecord]
    seconds: float
    created: str
    stamp: Stamp | None = None
    calibration: Mapping[str, Scalar] | None = None

    @property
    def digest(self) -> str:
        """SHA-256 over names and contents: the artefact's identity, whatever made it."""
        return digest.of_named({name: record.sha256 for name, record in self.files.items()})


def describe(
    directory: Path, *, stage: StageName, inputs: Mapping[str, Scalar], seconds: float, stamp: Stamp | None = None
) -> Manifest:
    """Hash what `directory` holds; a manifest that is already there does not count."""
    return Manifest(
        stage=stage,
        key=digest.of_value(dict(inputs)),
        inputs=dict(inputs),
        files={path.relative_to(directory).as_posix(): record(path) for path in _files(directory)},
        seconds=round(seconds, 3),
        created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        stamp=stamp,
        calibration=_calibration(directory / CALIBRATION_RECORD),
    )


def _calibration(path: Path) -> Mapping[str, Scalar] | None:
    if not path.is_file():
        return None
    read: dict[str, Scalar] = json.loads(path.read_text(encoding="utf-8"))
    return read


def record(path: Path) -> FileRecord:
    """Look at one file and hash it."""
    state = path.stat()
    return FileRecord(size=state.st_size, mtime_ns=state.st_mtime_ns, sha256=digest.of_file(path))


def write(directory: Path, manifest: Manifest) -> None:
    """Write `directory/manifest.json`, whole or not at all, and push it to the disk."""
    replace_text(directory / MANIFEST_NAME, json.dumps({"schema": SCHEMA, **asdict(manifest)}, indent=1) + "\n")


def read(directory: Path) -> Manifest:
    """Read `directory/manifest.json`.

    Raises:
        ArtefactError: it is missing, or is not a manifest of this version.
    """
    path = directory / MANIFEST_NAME
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        if raw.pop("schema") != SCHEMA:
            message = f"{path}: was written by another version of scalellm-trt"
            raise ArtefactError(message, hint="Run `scalellm-trt build` again.")
        raw["files"] = {name: FileRecord(**fields) for name, fields in raw["files"].items()}
        stamp = raw.pop("stamp", None)
        return Manifest(**raw, stamp=None if stamp is None else Stamp(**stamp))
    except FileNotFoundError as error:
        message = f"{directory}: there is no finished artefact here"
        raise ArtefactError(message, hint="Run `scalellm-trt build` again.") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        message = f"{path}: cannot be read as a manifest: {error}"
        raise ArtefactError(message, hint="Run `scalellm-trt build` again.") from error


def changed_files(directory: Path, manifest: Manifest, *, hashed: bool = False) -> list[str]:
    """Name the files that are gone or no longer as recorded; by size and mtime, or by content when `hashed`."""
    return [
        name for name, recorded in manifest.files.items() if not _is_as_recorded(directory / name, recorded, hashed)
    ]


def changed_inputs(old: Mapping[str, Scalar], new: Mapping[str, Scalar]) -> list[str]:
    """Say what differs, one line a key: `limits.max_num_tokens 4096 → 8192`."""
    return [
        f"{key} {_show(old, key)} → {_show(new, key)}"
        for key in sorted({*old, *new})
        if old.get(key, ...) != new.get(key, ...)
    ]


def replace_text(path: Path, text: str) -> None:
    """Replace a text file atomically and durably: no reader, and no crash, meets half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with temporary.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)
    sync_directory(path.parent)


def sync_tree(directory: Path) -> None:
    """Push every file and folder below `directory` to the disk."""
    for folder, _, names in os.walk(directory):
        for name in names:
            _sync(Path(folder) / name)
        sync_directory(Path(folder))


def sync_directory(directory: Path) -> None:
    """Push a folder's entries to the disk, so that a rename in it outlives a power cut."""
    _sync(directory)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file() and path.name != MANIFEST_NAME)


def _is_as_recorded(path: Path, recorded: FileRecord, hashed: bool) -> bool:
    try:
        state = path.stat()
    except OSError:
        return False
    if state.st_size != recorded.size:
        return False
    return digest.of_file(path) == recorded.sha256 if hashed else state.st_mtime_ns == recorded.mtime_ns


def _show(inputs: Mapping[str, Scalar], key: str) -> str:
    value = inputs.get(key, "(none)")
    text = str(value)
    # A digest's first characters tell it apart; all 64 only hide the rest of the line.
    return text[:12] if len(text) == 64 and text.isalnum() else text

"""`manifest.json` in the repository's root: which service owns which directory, from which recipe and engine."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from scalellm_trt.artefacts.types import Stamp
from scalellm_trt.errors import ArtefactError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MANIFEST_NAME = "manifest.json"
SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class FileState:
    """A file as it was published. `mtime_ns` answers "unchanged?" on this machine; a copy keeps only the size."""

    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRecord:
    """One directory of the repository.

    Attributes:
        backend: Triton's backend.
        inputs, outputs: tensor names; by them a client knows the contract (`text_input`, `input_ids`, …).
        files: path below the model's directory → how it looked.
    """

    backend: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    files: Mapping[str, FileState]


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """What a service was at one time.

    Attributes:
        recipe: path of the recipe as the user wrote it.
        owner_digest: SHA-256 over everything that the service's directories were made from.
        engine_digest: SHA-256 of the engine's files.
        transaction: the switch that made it, also in each directory's mark.
        created: ISO 8601, UTC.
        models: directory name → what it holds.
        stamp: of an engine that loads on one kind of card only.
        toolchain: row of data/toolchains.yaml that the service runs with; None where nobody said.
    """

    recipe: str
    owner_digest: str
    engine_digest: str
    transaction: str
    created: str
    models: Mapping[str, ModelRecord]
    stamp: Stamp | None = None
    toolchain: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceRecord:
    """A service now, and the version that `rollback` returns to.

    `previous_id` names the folder that holds the previous version's directories, in the state directory.
    """

    name: str
    current: Version
    previous: Version | None
    previous_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryManifest:
    """All services of a repository, by name."""

    services: Mapping[str, ServiceRecord]

    def owner_of(self, directory: str) -> str | None:
        """Return the service that owns a directory of the root; None when no service does."""
        for record in self.services.values():
            if directory in record.current.models:
                return record.name
        return None

    def with_service(self, record: ServiceRecord) -> RepositoryManifest:
        """Return a copy in which `record` takes the place of the service of its name."""
        return RepositoryManifest(services={**self.services, record.name: record})

    def without(self, service: str) -> RepositoryManifest:
        """Return a copy without a service."""
        return RepositoryManifest(services={name: kept for name, kept in self.services.items() if name != service})


def with_file(
    manifest: RepositoryManifest, service: str, model: str, path: str, state: FileState
) -> RepositoryManifest:
    """Return a copy in which a file of the service's current version looks as `state` says."""
    record = manifest.services[service]
    changed = replace(record.current.models[model], files={**record.current.models[model].files, path: state})
    current = replace(record.current, models={**record.current.models, model: changed})
    return manifest.with_service(replace(record, current=current))


def to_text(manifest: RepositoryManifest) -> str:
    """Return the text of `manifest.json`."""
    services = {name: asdict(record) for name, record in sorted(manifest.services.items())}
    return json.dumps({"schema": SCHEMA, "services": services}, indent=1) + "\n"


def read(root: Path) -> RepositoryManifest:
    """Read the manifest of the repository at `root`; a repository without one has no services.

    Raises:
        ArtefactError: it is not a manifest of this version.
    """
    path = root / MANIFEST_NAME
    hint = f"Restore {path}, or move {root} away and build each recipe again."
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        if raw["schema"] != SCHEMA:
            message = f"{path}: was written by another version of scalellm-trt"
            raise ArtefactError(message, hint=hint)
        return RepositoryManifest(services={name: _record(fields) for name, fields in raw["services"].items()})
    except (FileNotFoundError, NotADirectoryError):
        return RepositoryManifest(services={})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        message = f"{path}: cannot be read as a repository's manifest: {error}"
        raise ArtefactError(message, hint=hint) from error


# What json.loads gives is checked by the constructors and by `read`, which turns every surprise into one error.
def _record(raw: Mapping[str, object]) -> ServiceRecord:
    return ServiceRecord(
        name=_text(raw["name"]),
        current=_version(raw["current"]),
        previous=None if raw["previous"] is None else _version(raw["previous"]),
        previous_id=None if raw["previous_id"] is None else _text(raw["previous_id"]),
    )


def _version(raw: object) -> Version:
    fields = _mapping(raw)
    return Version(
        recipe=_text(fields["recipe"]),
        owner_digest=_text(fields["owner_digest"]),
        engine_digest=_text(fields["engine_digest"]),
        transaction=_text(fields["transaction"]),
        created=_text(fields["created"]),
        models={name: _model(model) for name, model in _mapping(fields["models"]).items()},
        stamp=_stamp(fields.get("stamp")),
        toolchain=None if fields.get("toolchain") is None else _text(fields["toolchain"]),
    )


def _stamp(raw: object) -> Stamp | None:
    if raw is None:
        return None
    fields = _mapping(raw)
    return Stamp(
        gpu_name=_text(fields["gpu_name"]),
        compute_capability=_text(fields["compute_capability"]),
        tensorrt=_text(fields["tensorrt"]),
        tensorrt_llm=_text(fields["tensorrt_llm"]),
        driver_floor=_text(fields["driver_floor"]),
        image=None if fields["image"] is None else _text(fields["image"]),
    )


def _model(raw: object) -> ModelRecord:
    fields = _mapping(raw)
    return ModelRecord(
        backend=_text(fields["backend"]),
        inputs=_names(fields["inputs"]),
        outputs=_names(fields["outputs"]),
        files={name: _file(state) for name, state in _mapping(fields["files"]).items()},
    )


def _file(raw: object) -> FileState:
    fields = _mapping(raw)
    return FileState(size=_integer(fields["size"]), mtime_ns=_integer(fields["mtime_ns"]))


def _mapping(raw: object) -> Mapping[str, object]:
    if not isinstance(raw, dict):
        message = f"an object was expected, found {raw!r:.40}"
        raise TypeError(message)
    return raw


def _names(raw: object) -> tuple[str, ...]:
    if not isinstance(raw, list):
        message = f"a list was expected, found {raw!r:.40}"
        raise TypeError(message)
    return tuple(_text(name) for name in raw)


def _text(raw: object) -> str:
    if not isinstance(raw, str):
        message = f"a string was expected, found {raw!r:.40}"
        raise TypeError(message)
    return raw


def _integer(raw: object) -> int:
    if not isinstance(raw, int):
        message = f"an integer was expected, found {raw!r:.40}"
        raise TypeError(message)
    return raw

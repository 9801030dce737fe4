"""The model repository: publish a service, take it away, return to its previous version; several live side by side.

```
triton_repo/MODEL/…                    config.pbtxt, published.json (its mark), 1/{sources, service.json, engine/}
triton_repo/manifest.json              which service owns which directory
STATE/staging/TRANSACTION/MODEL/       being written; removed by the next command
STATE/previous/SERVICE/ID/MODEL/       what `rollback` returns to
STATE/journal.json                     a decided switch that is not finished
```

STATE is outside the repository, because tritonserver refuses to start over a directory that is not a model, and on
the same file system, because directories are renamed into place. A directory that the manifest does not own is
never touched. Each directory is switched in one step; a service of two models is switched one after the other, and
an interrupted switch is finished by the next command.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import os
import secrets
import shutil
from typing import TYPE_CHECKING

from scalellm_trt.artefacts import publish as switching
from scalellm_trt.artefacts.publish import Journal, Switch, untraced
from scalellm_trt.artefacts.types import Repository
from scalellm_trt.errors import ArtefactError, StageError
from scalellm_trt.triton import engine_paths, repository_manifest, staging
from scalellm_trt.triton.repository_manifest import MANIFEST_NAME, ServiceRecord, Version

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from scalellm_trt.artefacts.publish import Trace
    from scalellm_trt.artefacts.types import Stamp, TritonModel
    from scalellm_trt.triton.repository_manifest import RepositoryManifest

LOCK_TIMEOUT_S = 60.0
PROBE_NAME = ".probe"


def state_dir_for(root: Path, cache_dir: Path) -> Path:
    """Return the state directory of one repository among those that share `cache_dir` (`builds/.cache/repository`)."""
    return cache_dir / hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:12]


def publish(
    models: Sequence[TritonModel],
    *,
    service: str,
    recipe: str,
    owner_digest: str,
    engine_digest: str,
    root: Path,
    state_dir: Path,
    stamp: Stamp | None = None,
    toolchain: str | None = None,
    trace: Trace = untraced,
) -> Repository:
    """Make `service` consist of `models`, and keep what it was for `rollback`.

    Args:
        models: the service's models; each gets a directory of its name.
        service: the owner of these directories, the recipe's name.
        recipe: the recipe's path, for people.
        owner_digest: SHA-256 over all that the directories are made from; `is_current` compares it.
        engine_digest: SHA-256 of the engine.
        root: the repository; made where missing.
        state_dir: from `state_dir_for`; on the file system of `root`.
        stamp: of the engine; `serve` compares it with where it is about to be loaded.
        toolchain: its row; says which image can serve it.
        trace: called before each step that changes the disk.

    Raises:
        ArtefactError: a directory of that name is not this service's, or a source is missing.
        StageError: the disk refused.
    """
    with _locked(root, state_dir, trace) as manifest:
        record = manifest.services.get(service)
        _check_ownership(root, manifest, service, [model.name for model in models])
        transaction = _new_transaction()
        staged = f"staging/{transaction}"
        version = Version(
            recipe=recipe,
            owner_digest=owner_digest,
            engine_digest=engine_digest,
            transaction=transaction,
            created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            models={
                model.name: staging.write_model(
                    model,
                    state_dir / staged / model.name,
                    root=root.resolve(),
                    transaction=transaction,
                    trace=trace,
                )
                for model in models
            },
            stamp=stamp,
            toolchain=toolchain,
        )
        _switch(root, state_dir, manifest, service, version, staged=staged, old=record, trace=trace)
    return describe(root)


def rollback(service: str, *, root: Path, state_dir: Path, trace: Trace = untraced) -> ServiceRecord:
    """Return `service` to its previous version, and keep the present one: a second rollback undoes the first.

    Raises:
        ArtefactError: there is no such service, or no previous version of it.
        StageError: the disk refused.
    """
    with _locked(root, state_dir, trace) as manifest:
        record = _owned(root, manifest, service)
        hint = f"Build the recipe that you want back: {record.current.recipe}"
        if record.previous is None:
            message = f"{service}: was published once only, there is nothing to return to"
            raise ArtefactError(message, hint=hint)
        staged = f"previous/{service}/{record.previous_id}"
        gone = [name for name in record.previous.models if not (state_dir / staged / name).is_dir()]
        if gone:
            message = f"{service}: the previous version is gone: {state_dir / staged / gone[0]} is missing"
            raise ArtefactError(message, hint=hint)
        _check_ownership(root, manifest, service, list(record.previous.models))
        _switch(root, state_dir, manifest, service, record.previous, staged=staged, old=record, trace=trace)
    return repository_manifest.read(root).services[service]


def remove(service: str, *, root: Path, state_dir: Path, trace: Trace = untraced) -> ServiceRecord:
    """Take `service` out of the repository, its previous version too; the engine in `builds/` stays.

    Returns:
        What was removed.

    Raises:
        ArtefactError: there is no such service.
        StageError: the disk refused.
    """
    with _locked(root, state_dir, trace) as manifest:
        record = _owned(root, manifest, service)
        trash = f"staging/{_new_transaction()}"
        switches = tuple(
            Switch(live=name, staged=None, mark=None, retired=f"{trash}/{name}") for name in record.current.models
        )
        outcome = {MANIFEST_NAME: repository_manifest.to_text(manifest.without(service))}
        trace("begin")
        switching.begin(Journal(switches=switches, outcome=outcome), state_dir)
        switching.finish(root, state_dir, trace=trace)
    return record


def recover(root: Path, state_dir: Path, *, trace: Trace = untraced) -> bool:
    """Finish a switch that was interrupted, and remove what interrupted commands left.

    Returns:
        Whether a switch had to be finished.

    Raises:
        ArtefactError: another command holds the repository, or the journal is damaged.
        StageError: the disk refused.
    """
    interrupted = (state_dir / switching.JOURNAL_NAME).exists()
    if interrupted or (state_dir / "staging").exists():
        with _locked(root, state_dir, trace):
            pass
    return interrupted


def resolve_paths(
    root: Path, state_dir: Path, *, seen_as: Path | None = None, trace: Trace = untraced
) -> tuple[str, ...]:
    """Let engines be found by a server that sees the repository at `seen_as`; by default where it lies now.

    Returns:
        The models that had to be changed.

    Raises:
        ArtefactError, StageError: see `engine_paths.resolve`.
    """
    place = root.resolve() if seen_as is None else seen_as
    if not engine_paths.misplaced(root, place):
        return ()
    with _locked(root, state_dir, trace):
        return engine_paths.resolve(root, place)


def describe(root: Path) -> Repository:
    """Return the repository as a value.

    Raises:
        ArtefactError: its manifest cannot be read.
    """
    services = repository_manifest.read(root).services
    return Repository(root=root, services={name: tuple(record.current.models) for name, record in services.items()})


def list_services(root: Path) -> tuple[ServiceRecord, ...]:
    """Return the services at `root`, by name; none where there is no repository.

    Raises:
        ArtefactError: its manifest cannot be read.
    """
    return tuple(record for _, record in sorted(repository_manifest.read(root).services.items()))


def is_current(root: Path, service: str, owner_digest: str) -> bool:
    """Tell whether `service` was published from exactly this and nobody changed its files since (size and mtime)."""
    record = repository_manifest.read(root).services.get(service)
    if record is None or record.current.owner_digest != owner_digest:
        return False
    for name, model in record.current.models.items():
        for path, recorded in model.files.items():
            try:
                state = (root / name / path).stat()
            except OSError:
                return False
            if (state.st_size, state.st_mtime_ns) != (recorded.size, recorded.mtime_ns):
                return False
    return True


def _switch(
    root: Path,
    state_dir: Path,
    manifest: RepositoryManifest,
    service: str,
    version: Version,
    *,
    staged: str,
    old: ServiceRecord | None,
    trace: Trace,
) -> None:
    """Let `version`, whose directories are in `staged`, take the place of what `service` is now."""
    retired_id = _new_transaction()
    retired = f"previous/{service}/{retired_id}"
    names = list(version.models)
    superfluous = [] if old is None else [name for name in old.current.models if name not in version.models]
    switches = [
        *(
            Switch(live=name, staged=f"{staged}/{name}", mark=version.transaction, retired=f"{retired}/{name}")
            for name in names
        ),
        *(Switch(live=name, staged=None, mark=None, retired=f"{retired}/{name}") for name in superfluous),
    ]
    record = ServiceRecord(
        name=service,
        current=version,
        previous=None if old is None else old.current,
        previous_id=None if old is None else retired_id,
    )
    outcome = {MANIFEST_NAME: repository_manifest.to_text(manifest.with_service(record))}
    trace("begin")
    switching.begin(Journal(switches=tuple(switches), outcome=outcome), state_dir)
    switching.finish(root, state_dir, trace=trace)


@contextlib.contextmanager
def _locked(root: Path, state_dir: Path, trace: Trace) -> Iterator[RepositoryManifest]:
    """Hold the repository alone, with every interrupted switch finished, and leave nothing temporary behind."""
    from filelock import FileLock, Timeout

    try:
        root.mkdir(parents=True, exist_ok=True)
        state_dir.mkdir(parents=True, exist_ok=True)
        with FileLock(state_dir / "lock", timeout=LOCK_TIMEOUT_S):
            _check_file_system(root, state_dir)
            switching.finish(root, state_dir, trace=trace)
            _sweep(root, state_dir)
            try:
                yield repository_manifest.read(root)
            finally:
                # A switch that the file system stopped half-way needs its staged directories to go on.
                if not (state_dir / switching.JOURNAL_NAME).exists():
                    _sweep(root, state_dir)
    except Timeout as error:
        message = f"{root}: another command has been changing the repository for {LOCK_TIMEOUT_S:.0f} s"
        raise ArtefactError(
            message, hint=f"Let it finish, then try again. Its lock is {state_dir / 'lock'}."
        ) from error
    except OSError as error:
        message = f"{root}: {error.strerror or error}: {error.filename or state_dir}"
        raise StageError(
            message, hint="Free space or fix the permissions; the next command goes on from here."
        ) from error


def _check_file_system(root: Path, state_dir: Path) -> None:
    """Try what a switch needs; device numbers do not tell, a bind mount refuses renames on one device too."""
    (state_dir / PROBE_NAME).touch()
    try:
        (state_dir / PROBE_NAME).replace(root / PROBE_NAME)
    except OSError as error:
        message = f"{root} and {state_dir} are not on one file system, so nothing can be switched in one step"
        raise ArtefactError(message, hint="Put the repository and builds/ on the same file system.") from error
    (root / PROBE_NAME).unlink()


def _sweep(root: Path, state_dir: Path) -> None:
    """Remove staged directories of interrupted commands, and previous versions that no service returns to."""
    shutil.rmtree(state_dir / "staging", ignore_errors=True)
    kept = {
        state_dir / "previous" / record.name / record.previous_id
        for record in repository_manifest.read(root).services.values()
        if record.previous_id is not None
    }
    for version in (state_dir / "previous").glob("*/*"):
        if version not in kept:
            shutil.rmtree(version, ignore_errors=True)


def _check_ownership(root: Path, manifest: RepositoryManifest, service: str, names: Sequence[str]) -> None:
    for name in names:
        owner = manifest.owner_of(name)
        if owner == service:
            continue
        if owner is not None:
            message = f"{root / name}: belongs to the service {owner} ({manifest.services[owner].current.recipe})"
            hint = f"Give the recipe another name, or free this one: scalellm-trt repo rm {owner}"
            raise ArtefactError(message, hint=hint)
        if name == MANIFEST_NAME or os.path.lexists(root / name):
            message = f"{root / name}: was not made by scalellm-trt, it stays as it is"
            raise ArtefactError(message, hint="Move it away, or give the recipe another name.")


def _owned(root: Path, manifest: RepositoryManifest, service: str) -> ServiceRecord:
    record = manifest.services.get(service)
    if record is None:
        names = ", ".join(sorted(manifest.services)) or "none"
        message = f"{root}: has no service {service!r}"
        raise ArtefactError(message, hint=f"Services here: {names}.")
    return record


def _new_transaction() -> str:
    now = datetime.datetime.now(datetime.timezone.utc)
    return f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"

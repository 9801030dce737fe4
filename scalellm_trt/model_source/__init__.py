"""Where a model comes from: a recipe's `model.source` in, a local directory in Hugging Face layout out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from scalellm_trt.artefacts.types import LocalModel
from scalellm_trt.errors import Problem, RecipeError, StageError
from scalellm_trt.model_source import gguf_import, hub, layout, pypi
from scalellm_trt.model_source.source import (
    SOURCE_KEY,
    DirectorySource,
    GgufSource,
    HubSource,
    PypiSource,
    Source,
    parse,
)
from scalellm_trt.model_source.store import NotInStoreError, Store

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["DirectorySource", "GgufSource", "HubSource", "PypiSource", "Source", "find", "parse", "resolve"]


def resolve(
    source: str,
    sha256: str | None,
    cache_dir: Path,
    progress: Callable[[str, float], None],
    *,
    base_dir: Path,
) -> LocalModel:
    """Bring a model onto this disk and say which one it is. What is there already is not fetched or imported again.

    Args:
        source: the recipe's `model.source`.
        sha256: the recipe's `model.sha256`: of the file, for `gguf:` and `pypi:`.
        cache_dir: where files, imported models and digests are kept; several builds may share it.
        progress: gets what is being done and which share of it is done, 0 to 1; from any thread.
        base_dir: what relative paths of the source count from: the recipe's folder.

    Raises:
        RecipeError: the source is misspelt, does not exist or is no model; nothing was changed.
        UnsupportedError: a GGUF file of a model or format that cannot be imported.
        ArtefactError: a file is damaged, or is not the one that the recipe pins.
        StageError: the network or the disk failed.
        ToolchainError: pip or the `gguf` package is missing.
    """
    return _resolve(source, sha256, Store(cache_dir), progress, base_dir)


def find(source: str, sha256: str | None, cache_dir: Path, *, base_dir: Path) -> LocalModel | None:
    """Return what `resolve` would, where nothing has to be downloaded or imported for it; None otherwise.

    Raises:
        RecipeError, UnsupportedError, ArtefactError, StageError: as `resolve`.
    """
    try:
        return _resolve(source, sha256, Store(cache_dir, is_closed=True), lambda _activity, _share: None, base_dir)
    except NotInStoreError:
        return None


def _resolve(
    source: str, sha256: str | None, store: Store, progress: Callable[[str, float], None], base_dir: Path
) -> LocalModel:
    parsed = parse(source)
    if sha256 is not None and isinstance(parsed, HubSource | DirectorySource):
        hint = (
            "Pin a hub model by its commit: hf:ORG/NAME@COMMIT." if isinstance(parsed, HubSource) else "Leave it out."
        )
        message = "is the digest of one file: it goes with gguf: and pypi: only"
        raise RecipeError([Problem(key=pypi.SHA256_KEY, message=message, hint=hint)])
    try:
        directory, revision = _locate(parsed, sha256, store, progress, base_dir)
        names = layout.check_directory(directory, source)
        digest = store.digest(directory, names)
    except OSError as error:
        message = f"{SOURCE_KEY}: {error.strerror or error}: {error.filename or store.root}"
        raise StageError(message, hint="Free some space or fix the permissions, then build again.") from error
    return LocalModel(directory=directory, source=source, revision=revision or digest, digest=digest)


def _locate(
    source: Source, sha256: str | None, store: Store, progress: Callable[[str, float], None], base_dir: Path
) -> tuple[Path, str | None]:
    """Return the model's directory and what was really used; None stands for the directory's own digest."""
    if isinstance(source, HubSource):
        snapshot = hub.find_or_download(source, store, progress)
        return snapshot.directory, snapshot.commit
    if isinstance(source, DirectorySource):
        return _existing(source.path, base_dir, "directory", Path.is_dir), None
    if isinstance(source, GgufSource):
        file = _existing(source.path, base_dir, "file", Path.is_file)
        found = store.sha256(file)
        if sha256 is not None:
            pypi.check_sha256(str(file), found, sha256)
    else:
        file = pypi.find_or_download(source, sha256, store, progress)
        found = store.sha256(file)
    return gguf_import.find_or_import(file, found, store, progress), found


def _existing(path: str, base_dir: Path, kind: str, is_kind: Callable[[Path], bool]) -> Path:
    found = base_dir / Path(path).expanduser()
    if not is_kind(found):
        message = f"there is no {kind} {found}"
        hint = "A relative path counts from the recipe's folder."
        raise RecipeError([Problem(key=SOURCE_KEY, message=message, hint=hint)])
    return found.absolute()

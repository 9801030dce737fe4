"""A repository of the Hugging Face hub in, the folder of one pinned commit in the hub's own cache out.

The hub's cache (`HF_HOME`, `HF_HUB_CACHE`) is used, so that a model that another tool downloaded is not fetched again.
The endpoint (`HF_ENDPOINT`) and the token (`HF_TOKEN`) come from the environment; a token is never read from or
written to a file.
"""

from __future__ import annotations

import errno
import json
import os
import re
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from scalellm_trt.artefacts import manifest
from scalellm_trt.errors import Problem, RecipeError, ScaleLLMError, StageError
from scalellm_trt.model_source import layout
from scalellm_trt.model_source.download_progress import DownloadProgress
from scalellm_trt.model_source.source import SOURCE_KEY
from scalellm_trt.model_source.store import NotInStoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from scalellm_trt.model_source.source import HubSource
    from scalellm_trt.model_source.store import Store

_COMMIT = re.compile(r"[0-9a-f]{40}")
_RETRY_PAUSES_S = (0.5, 2.0)
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)
_DEFAULT_ENDPOINT = "https://huggingface.co"
_WITHOUT_THE_HUB = (
    "Check the network and proxy settings, then build again: finished files are kept. A mirror goes into HF_ENDPOINT; "
    "without a network, name a directory with the model (model.source: ./DIRECTORY), or let HF_HOME be a copy of a "
    "cache that has it."
)


class HubUnreachableError(StageError):
    """The hub did not answer, or answered that something is wrong with itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The files of one commit on this disk."""

    directory: Path
    commit: str


def find_or_download(source: HubSource, store: Store, progress: Callable[[str, float], None]) -> Snapshot:
    """Return the model's folder; download what is missing of it. A commit that is all there needs no network.

    A branch or tag is resolved to a commit first, and every file is taken from that one. Where the hub cannot be
    reached, the commit that the branch had when it was last downloaded is used, and `progress` says so.

    Raises:
        RecipeError: the repository or revision does not exist, is gated, or holds no safetensors model.
        HubUnreachableError: the hub cannot be reached, and the model is not on this disk; exit code 5.
        NotInStoreError: the model is not on this disk, and the store is closed: the hub is not asked.
    """
    remembered = _remembered(source, store)
    if store.is_closed:
        if known := remembered or _cached_by_others(source):
            return known
        raise NotInStoreError(source.repository)
    if remembered is not None and source.revision == remembered.commit:
        return remembered
    progress(f"asking the hub for {source.repository}", 0.0)
    try:
        commit, sizes = _ask(source)
    except HubUnreachableError:
        known = remembered or _cached_by_others(source)
        if known is None:
            raise
        progress(f"the hub cannot be reached: using the cached commit {known.commit[:12]}", 1.0)
        return known
    snapshot = _download(source, commit, sizes, progress)
    _remember(source, store, snapshot)
    return snapshot


def _ask(source: HubSource) -> tuple[str, Mapping[str, int]]:
    """Return the commit that the revision means now, and the size in bytes of each of its files at the top."""
    from huggingface_hub import HfApi

    with errors_of_the_hub(source):
        api = HfApi(endpoint=_endpoint(), token=_token())
        info = api.model_info(source.repository, revision=source.revision, files_metadata=True)
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or [] if "/" not in file.rfilename}
    if info.sha is None:
        message = f"{SOURCE_KEY}: the hub names no commit for {source.repository}@{source.revision}"
        raise HubUnreachableError(message, hint="Write the commit into the recipe: hf:ORG/NAME@COMMIT.")
    layout.check_listing(sizes, f"hf:{source.repository}@{info.sha[:12]}")
    return info.sha, sizes


def _download(
    source: HubSource, commit: str, sizes: Mapping[str, int], progress: Callable[[str, float], None]
) -> Snapshot:
    """Download what a build reads: the small files first, since the index says which weight files there are."""
    described = layout.described_files(sizes)
    paths = {name: _download_file(source, commit, name) for name in described}
    weights = layout.weight_files(paths.get(layout.INDEX_FILE))
    total = sum(sizes.get(name, 0) for name in weights)
    directory = paths[layout.CONFIG_FILE].parent
    with DownloadProgress(
        directory.parent.parent / "blobs", total, lambda share: progress(f"downloading {source.repository}", share)
    ):
        for name in weights:
            _download_file(source, commit, name)
    return Snapshot(directory=directory, commit=commit)


def _download_file(source: HubSource, commit: str, name: str) -> Path:
    """Return the file's path in the cache; try again where the connection broke, since not every client does."""
    for pause_s in _RETRY_PAUSES_S:
        try:
            return _download_once(source, commit, name)
        except HubUnreachableError:
            time.sleep(pause_s)
    return _download_once(source, commit, name)


def _download_once(source: HubSource, commit: str, name: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()  # `progress` tells; two bars would overwrite each other
    with errors_of_the_hub(source):
        path = hf_hub_download(
            source.repository, name, revision=commit, cache_dir=_cache_dir(), endpoint=_endpoint(), token=_token()
        )
    return Path(path)


def _cached_by_others(source: HubSource) -> Snapshot | None:
    """Look for the revision among what other tools downloaded; only a model that is whole counts."""
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(
        source.repository, layout.CONFIG_FILE, cache_dir=_cache_dir(), revision=source.revision
    )
    if not isinstance(config, str):
        return None
    directory = Path(config).parent
    try:
        layout.check_directory(directory, str(directory))
    except ScaleLLMError:
        return None
    return Snapshot(directory=directory, commit=directory.name)


def _note(source: HubSource, store: Store) -> Path:
    name = f"{source.repository}@{source.revision}".replace("/", "--")
    return store.root / "hub" / f"{name}.json"


def _remember(source: HubSource, store: Store, snapshot: Snapshot) -> None:
    files = layout.check_directory(snapshot.directory, f"hf:{source.repository}")
    content = {"directory": str(snapshot.directory), "commit": snapshot.commit, "files": files}
    manifest.replace_text(_note(source, store), json.dumps(content, indent=1) + "\n")


def _remembered(source: HubSource, store: Store) -> Snapshot | None:
    """Return what the revision was when it was last downloaded, while all of its files are still there."""
    try:
        content = json.loads(_note(source, store).read_text(encoding="utf-8"))
        directory, files = Path(content["directory"]), [str(name) for name in content["files"]]
        commit = str(content["commit"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    is_whole = _COMMIT.fullmatch(commit) and all((directory / name).is_file() for name in files)
    return Snapshot(directory=directory, commit=commit) if is_whole else None


@contextmanager
def errors_of_the_hub(source: HubSource) -> Iterator[None]:
    """Turn what the client raises into our errors.

    Which classes it raises for a broken connection depends on its version (requests, httpx, …), so whatever is not
    known as the caller's mistake counts as the hub being out of reach.

    Raises:
        RecipeError, HubUnreachableError: as `find_or_download`.
        OSError: this machine's disk is full or cannot be written.
    """
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

    place = f"{_endpoint()}/{source.repository}"
    try:
        yield
    except GatedRepoError as error:
        hint = f"Accept its terms at {place}, make a token at {_endpoint()}/settings/tokens, and set HF_TOKEN to it."
        _refuse(f"{place} is gated: it wants an account that accepted its terms", hint, error)
    except RevisionNotFoundError as error:
        hint = f"Its branches and commits are at {place}/commits/main."
        _refuse(f"{place} has no revision {source.revision!r}", hint, error)
    except RepositoryNotFoundError as error:
        hint = "Check the spelling. A private one needs a token that may read it in HF_TOKEN."
        _refuse(f"there is no model at {place}, or it is private", hint, error)
    except HFValidationError as error:
        _refuse(str(error), "A repository is ORG/NAME.", error)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
            raise
        message = f"{SOURCE_KEY}: {place} cannot be reached: {_reason(error)}"
        raise HubUnreachableError(message, hint=_WITHOUT_THE_HUB) from error


def _refuse(message: str, hint: str, error: Exception) -> None:
    raise RecipeError([Problem(key=SOURCE_KEY, message=message, hint=hint)]) from error


def _reason(error: Exception) -> str:
    """Return the system's own words at the bottom of what clients wrap around them, else the client's first line."""
    root: BaseException = error
    while (inner := root.__cause__ or root.__context__) is not None:
        root = inner
    if isinstance(root, OSError) and root.strerror:
        return root.strerror
    lines: Sequence[str] = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", _DEFAULT_ENDPOINT).rstrip("/")


def _cache_dir() -> str | None:
    """Return the hub's cache where the environment names one; the client knows the place otherwise."""
    cache = os.environ.get("HF_HUB_CACHE")
    if cache is None and "HF_HOME" in os.environ:
        cache = str(Path(os.environ["HF_HOME"]) / "hub")
    return cache


def _token() -> str | bool:
    """Return the token; False keeps the client from looking for one in the home directory."""
    return os.environ.get("HF_TOKEN") or False

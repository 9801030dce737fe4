"""Look after the artefacts in `builds/`: list them, check them, remove what nobody uses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from scalellm_trt.artefacts import manifest
from scalellm_trt.artefacts.stage_cache import StageCache
from scalellm_trt.checkpoint import unified_verify, verify
from scalellm_trt.errors import ArtefactError

if TYPE_CHECKING:
    from pathlib import Path

    from scalellm_trt.artefacts.manifest import Manifest
    from scalellm_trt.errors import Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheEntry:
    """One artefact, its size on disk and the recipes that use it now."""

    directory: Path
    manifest: Manifest
    num_bytes: int
    used_by: tuple[str, ...]


def cache_entries(builds_dir: Path) -> list[CacheEntry]:
    """List the artefacts below `builds_dir`; one with an unreadable manifest is left to `verify_cache`."""
    cache = StageCache(builds_dir)
    users = cache.users()
    entries = []
    for directory in cache.artefacts():
        try:
            read = manifest.read(directory)
        except ArtefactError:
            continue
        num_bytes = sum(record.size for record in read.files.values())
        used_by = tuple(users.get(directory.resolve(), ()))
        entries.append(CacheEntry(directory=directory, manifest=read, num_bytes=num_bytes, used_by=used_by))
    return entries


def verify_cache(builds_dir: Path) -> dict[Path, list[str]]:
    """Hash every artefact and read every checkpoint back.

    Returns:
        Artefact → what is wrong with it; an empty list for an intact one.
    """
    return {directory: _damage(directory) for directory in StageCache(builds_dir).artefacts()}


def prune_cache(builds_dir: Path) -> list[Path]:
    """Remove the artefacts that no recipe uses; return what was removed."""
    return StageCache(builds_dir).prune()


def _damage(directory: Path) -> list[str]:
    try:
        read = manifest.read(directory)
    except ArtefactError as error:
        return [error.message]
    damage = [
        f"{name}: content differs from the manifest" for name in manifest.changed_files(directory, read, hashed=True)
    ]
    if read.stage == "quantize" and not damage:
        damage.extend(str(problem) for problem in _checkpoint_problems(directory))
    return damage


def _checkpoint_problems(directory: Path) -> list[Problem]:
    """Read a checkpoint back, in whichever of the two formats it is."""
    if unified_verify.is_unified(directory):
        return unified_verify.verify_unified(directory)
    return verify.verify(directory)

"""Engines are named by absolute paths in config.pbtxt: write them anew where the repository has moved to.

The manifest is written first, with the size and time that the file is about to get: a kill in between leaves a path
that is still wrong, which the next call corrects.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from scalellm_trt.artefacts import manifest as stage_manifest
from scalellm_trt.errors import ArtefactError, StageError
from scalellm_trt.triton import published_engines, repository_manifest
from scalellm_trt.triton.repository_manifest import FileState, with_file
from scalellm_trt.triton.staging import CONFIG_NAME

if TYPE_CHECKING:
    from pathlib import Path

    from scalellm_trt.triton.published_engines import PublishedEngine


def resolve(root: Path, seen_as: Path) -> tuple[str, ...]:
    """Let every engine of the repository at `root` be found by a server that sees it at `seen_as`.

    The caller holds the repository alone.

    Returns:
        The models whose config.pbtxt was changed.

    Raises:
        ArtefactError: a config.pbtxt cannot be read.
        StageError: the repository cannot be written to.
    """
    changed = misplaced(root, seen_as)
    for engine in changed:
        path = root / engine.model / CONFIG_NAME
        try:
            _replace(root, engine, path, _with_paths(_text(path), engine, seen_as))
        except OSError as error:
            message = f"{path}: names engines where this repository is not any more: {error.strerror or error}"
            hint = f"Make the repository writable, or let the server see it at its old place: it is {seen_as} now."
            raise StageError(message, hint=hint) from error
    return tuple(engine.model for engine in changed)


def misplaced(root: Path, seen_as: Path) -> list[PublishedEngine]:
    """Return the engines whose config.pbtxt names another place; a file that is missing is for others to tell."""
    engines = [engine for engine in published_engines.find(root) if (root / engine.model / CONFIG_NAME).is_file()]
    texts = {engine.model: _text(root / engine.model / CONFIG_NAME) for engine in engines}
    return [engine for engine in engines if _with_paths(texts[engine.model], engine, seen_as) != texts[engine.model]]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        message = f"{path}: cannot be read: {error}"
        raise ArtefactError(message, hint="Build the recipe again.") from error


def _with_paths(text: str, engine: PublishedEngine, seen_as: Path) -> str:
    """Return the text with the engine's paths below `seen_as`; every other line stays as it is."""
    from scalellm_trt.triton.model_config import parameter_line

    lines = text.splitlines()
    for key, path in engine.repository_paths.items():
        begin = parameter_line(key, "").split("value {")[0]
        lines = [parameter_line(key, str(seen_as / path)) if line.startswith(begin) else line for line in lines]
    return "\n".join(lines) + "\n"


def _replace(root: Path, engine: PublishedEngine, path: Path, text: str) -> None:
    manifest = repository_manifest.read(root)
    state = FileState(size=len(text.encode()), mtime_ns=path.stat().st_mtime_ns + 1)
    updated = with_file(manifest, engine.service, engine.model, CONFIG_NAME, state)
    stage_manifest.replace_text(root / repository_manifest.MANIFEST_NAME, repository_manifest.to_text(updated))
    new = path.with_name(f".{CONFIG_NAME}.new")
    new.write_text(text, encoding="utf-8")
    os.utime(new, ns=(state.mtime_ns, state.mtime_ns))
    new.replace(path)

"""Is the repository what its manifest says, and would tritonserver start over it? Asked before every start.

Engines carry the manifest of the stage that made them, so what a server is about to load is hashed, not only measured.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from scalellm_trt.artefacts import manifest as stage_manifest
from scalellm_trt.errors import ArtefactError
from scalellm_trt.triton import repository_manifest
from scalellm_trt.triton.staging import CONFIG_NAME

if TYPE_CHECKING:
    from pathlib import Path

    from scalellm_trt.triton.repository_manifest import RepositoryManifest


def problems(root: Path) -> list[str]:
    """Say what is wrong with the repository, one line each: files by their sizes, engines by their SHA-256.

    Raises:
        ArtefactError: its manifest cannot be read.
    """
    manifest = repository_manifest.read(root)
    damaged = _damaged(root, manifest)
    # A file that is gone or cut short is named once; hashing would name it again.
    return [*(damaged or _altered(root, manifest)), *_strays(root)]


def check(root: Path) -> None:
    """Refuse a repository that tritonserver should not be started over.

    Raises:
        ArtefactError: there is none, it is empty, or files are missing, of another size or of other contents.
    """
    if not root.is_dir():
        message = f"{root}: there is no model repository here"
        raise ArtefactError(message, hint="Make one: scalellm-trt build recipes/cpu.yaml")
    if not any(entry.is_dir() for entry in root.iterdir()):
        message = f"{root}: the model repository is empty"
        raise ArtefactError(message, hint="Put a service into it: scalellm-trt build recipes/cpu.yaml")
    found = problems(root)
    if found:
        lines = "".join(f"\n  - {line}" for line in found)
        message = f"{root}: is not as it was published:{lines}"
        raise ArtefactError(
            message, hint="Build the service again, or return to its previous version with `repo rollback`."
        )


def _damaged(root: Path, manifest: RepositoryManifest) -> list[str]:
    found = []
    for record in manifest.services.values():
        for name, model in record.current.models.items():
            for path, recorded in model.files.items():
                try:
                    size = (root / name / path).stat().st_size
                except OSError:
                    found.append(f"{name}/{path} is missing (service {record.name}, {record.current.recipe})")
                    continue
                if size != recorded.size:
                    found.append(
                        f"{name}/{path} has {size} bytes, published were {recorded.size} "
                        f"(service {record.name}, {record.current.recipe})"
                    )
    return found


def _altered(root: Path, manifest: RepositoryManifest) -> list[str]:
    """Name the engine files whose contents are not what their stage wrote."""
    found = []
    for record in manifest.services.values():
        for name, model in record.current.models.items():
            for path in model.files:
                if PurePosixPath(path).name != stage_manifest.MANIFEST_NAME:
                    continue
                directory = (root / name / path).parent
                found += [
                    f"{(directory / file).relative_to(root)} has other contents than when it was built "
                    f"(service {record.name}, {record.current.recipe})"
                    for file in stage_manifest.changed_files(directory, stage_manifest.read(directory), hashed=True)
                ]
    return found


def _strays(root: Path) -> list[str]:
    """Name directories that make tritonserver refuse to start; models that somebody else put there are none."""
    return [
        f"{entry.name}/ is not a model, and tritonserver refuses to start beside it: move it away"
        for entry in sorted(root.iterdir())
        if entry.is_dir() and (entry.name.startswith(".") or not _looks_like_model(entry))
    ]


def _looks_like_model(directory: Path) -> bool:
    return (directory / CONFIG_NAME).is_file() or any(
        entry.is_dir() and entry.name.isdecimal() for entry in directory.iterdir()
    )

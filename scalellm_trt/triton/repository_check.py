"""Is the repository what its manifest says, and would tritonserver start over it? Asked before every start."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scalellm_trt.errors import ArtefactError
from scalellm_trt.triton import repository_manifest
from scalellm_trt.triton.staging import CONFIG_NAME

if TYPE_CHECKING:
    from pathlib import Path

    from scalellm_trt.triton.repository_manifest import RepositoryManifest


def problems(root: Path) -> list[str]:
    """Say what is wrong with the repository, one line each; sizes are compared, contents are not read.

    Raises:
        ArtefactError: its manifest cannot be read.
    """
    manifest = repository_manifest.read(root)
    return [*_damaged(root, manifest), *_strays(root)]


def check(root: Path) -> None:
    """Refuse a repository that tritonserver should not be started over.

    Raises:
        ArtefactError: there is none, it is empty, or files are missing or of another size.
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

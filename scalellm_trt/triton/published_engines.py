"""A repository in, the engines that its server will load onto GPUs out: where they lie, and how many ranks each has."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from scalellm_trt.errors import ArtefactError
from scalellm_trt.triton import repository_manifest
from scalellm_trt.triton.staging import SETTINGS_NAME, VERSION_NAME

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from scalellm_trt.artefacts.types import TritonModel

HostedBy = Literal["tensorrtllm", "llmapi"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedEngine:
    """A model that takes memory of a GPU.

    Attributes:
        model: its name.
        service: the recipe's name, which owns it.
        hosted_by: Triton's C++ backend, or the LLM API in a python model.
        world_size: ranks of its engine.
        repository_paths: parameter of config.pbtxt → path below the repository that it is to name absolutely.
    """

    model: str
    service: str
    hosted_by: HostedBy
    world_size: int
    repository_paths: Mapping[str, str]


def find(root: Path) -> tuple[PublishedEngine, ...]:
    """Return the engines that scalellm-trt has put into the repository, by name.

    Raises:
        ArtefactError: the manifest or a model's settings cannot be read.
    """
    found = []
    for record in repository_manifest.read(root).services.values():
        for name, model in record.current.models.items():
            settings = _settings(root / name / VERSION_NAME / SETTINGS_NAME)
            found.append(_engine(name, record.name, model.backend, settings))
    return _sorted(found)


def of_models(models: Sequence[TritonModel], service: str) -> tuple[PublishedEngine, ...]:
    """Return the engines that a service of `models` will have once it is published."""
    return _sorted([_engine(model.name, service, model.backend, model.settings) for model in models])


def _sorted(found: Sequence[PublishedEngine | None]) -> tuple[PublishedEngine, ...]:
    return tuple(sorted((engine for engine in found if engine is not None), key=lambda engine: engine.model))


def _engine(name: str, service: str, backend: str, settings: Mapping[str, object]) -> PublishedEngine | None:
    """Return what takes memory of a GPU; None for a model that only stands in front of it."""
    hosted_by: HostedBy | None = "llmapi" if settings.get("engine") == "llmapi" else None
    if backend == "tensorrtllm":
        hosted_by = "tensorrtllm"
    if hosted_by is None:
        return None
    paths = settings.get("repository_paths")
    return PublishedEngine(
        model=name,
        service=service,
        hosted_by=hosted_by,
        world_size=_size(settings, "tp_size") * _size(settings, "pp_size"),
        repository_paths={str(key): str(path) for key, path in paths.items()} if isinstance(paths, dict) else {},
    )


def _size(settings: Mapping[str, object], name: str) -> int:
    value = settings.get(name)
    return value if isinstance(value, int) else 1


def _settings(path: Path) -> Mapping[str, object]:
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}  # the check of the repository names files that are missing
    except (OSError, ValueError) as error:
        message = f"{path}: cannot be read: {error}"
        raise ArtefactError(message, hint="Build the recipe again.") from error
    return settings if isinstance(settings, dict) else {}

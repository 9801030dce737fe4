"""What a server of this machine serves: recipe, engine and digests, from the repository that it was published to."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from scalellm_trt import recipe
from scalellm_trt.errors import ArtefactError, ScaleLLMError
from scalellm_trt.triton import repository_manifest

if TYPE_CHECKING:
    from scalellm_trt.bench.run import Target

_HERE: Final = ("127.0.0.1", "localhost", "::1")


def added(target: Target, repository: Path) -> Target:
    """Return the target with what `repository` says of its model; unchanged where that is nothing.

    Of a server elsewhere nothing is known, though it may have a model of the same name.
    """
    url = target.url if "//" in target.url else f"//{target.url}"
    if urlsplit(url).hostname not in _HERE:
        return target
    try:
        manifest = repository_manifest.read(repository)
    except ArtefactError:
        return target
    service = manifest.owner_of(target.model)
    if service is None:
        return target
    version = manifest.services[service].current
    known = {
        "recipe": version.recipe,
        "published": version.created,
        "manifest_digest": version.owner_digest,
        "engine_digest": version.engine_digest,
    }
    if version.toolchain is not None:
        known["toolchain"] = version.toolchain
    return dataclasses.replace(
        target, facts={**target.facts, **known}, hardware=target.hardware or _hardware(Path(version.recipe))
    )


def _hardware(path: Path) -> str | None:
    """Return what the recipe is for; None where it cannot be read any more."""
    with contextlib.suppress(ScaleLLMError, OSError):
        return recipe.load(path).recipe.hardware
    return None

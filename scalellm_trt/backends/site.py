"""Where a build's heavy stages run, and where they leave what outlives one build."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from scalellm_trt.backends.container import EngineName


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """The surroundings of one build.

    Attributes:
        recipe: as the user wrote its path; for the commands in messages.
        cache_dir: `builds/.cache`, shared by all recipes.
        logs_dir: `builds/NAME/logs`.
        container: the container engine that stages with an image run in; None runs them here.
    """

    recipe: Path
    cache_dir: Path
    logs_dir: Path
    container: EngineName | None = None

"""Models in, the text of every file that publishing them would write out; nothing is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scalellm_trt.triton import model_config
from scalellm_trt.triton.staging import CONFIG_NAME, SETTINGS_NAME, VERSION_NAME, settings_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from scalellm_trt.artefacts.types import TritonModel


def texts(models: Sequence[TritonModel], root: Path) -> dict[str, str | None]:
    """Return path below the repository → text; None for files that are linked or copied from the engine unread.

    Left out: the marks and the manifest, which name the moment of the switch.

    Args:
        models: of one service.
        root: the repository as the server will see it.

    Raises:
        ArtefactError: as for `staging.write_model`.
    """
    found: dict[str, str | None] = {}
    for model in models:
        version_dir = f"{model.name}/{VERSION_NAME}"
        found[f"{model.name}/{CONFIG_NAME}"] = model_config.render(model, root)
        found[f"{version_dir}/{SETTINGS_NAME}"] = settings_text(model)
        for name, source in model.source_files.items():
            found[f"{version_dir}/{name}"] = source.read_text(encoding="utf-8") if source.suffix == ".py" else None
        for name in model.directories:
            found[f"{version_dir}/{name}/"] = None
    return found

"""A copy of a built repository with other settings of its service, which no recipe has; its engine is linked."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from scripts.benchmarks.sides.served_model import ServedModel


def write(model: ServedModel, root: Path, **settings: object) -> Path:
    """Copy the repository of `model` to `root` with other values in its service.json; return `root`.

    What was published is no longer what its manifest says: serve it without the check.
    """
    shutil.copytree(model.directory.parent, root, copy_function=os.link)
    service = root / model.service_json.relative_to(model.directory.parent)
    values = json.loads(service.read_text())
    unknown = settings.keys() - values.keys()
    if unknown:
        message = f"{service}: there is no {', '.join(sorted(unknown))}"
        raise SystemExit(message)
    service.unlink()
    service.write_text(json.dumps({**values, **settings}))
    return root

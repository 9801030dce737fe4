"""Rows of a long measurement, kept in a file, so that a run that was stopped goes on where it was."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from pathlib import Path
from typing import TYPE_CHECKING

import scalellm_trt

if TYPE_CHECKING:
    from collections.abc import Mapping

    Fields = Mapping[str, str | int | float | bool]


class KeptRows:
    """A file of JSON lines: first what the rows depend on, then a line each.

    Rows that were measured with other options, other libraries or other source code are never taken.
    """

    def __init__(self, path: Path, options: Fields, packages: tuple[str, ...]) -> None:
        versions = {name: importlib.metadata.version(name) for name in packages}
        head = json.dumps({"options": dict(options), "versions": versions, "source": _source_digest()}, sort_keys=True)
        self._path = path
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        if lines[:1] != [head]:
            lines = [head]
            path.write_text(head + "\n", encoding="utf-8")
        self._rows: dict[str, dict[str, str | int | float | bool]] = {}
        for line in lines[1:]:
            key, fields = json.loads(line)
            self._rows[key] = fields

    def get(self, key: str) -> dict[str, str | int | float | bool] | None:
        """Return a row that was measured before."""
        return self._rows.get(key)

    def add(self, key: str, fields: Fields) -> None:
        """Keep a row; what is in the file after a kill is whole rows and at most one torn line, which is cut off."""
        self._rows[key] = dict(fields)
        partial = self._path.with_suffix(".partial")
        head = self._path.read_text(encoding="utf-8").splitlines()[0]
        body = "".join(json.dumps(item) + "\n" for item in self._rows.items())
        partial.write_text(f"{head}\n{body}", encoding="utf-8")
        partial.replace(self._path)


def _source_digest() -> str:
    """Return a digest of what writes and reads checkpoints, and of what compares them."""
    digest = hashlib.sha256()
    package = Path(scalellm_trt.__file__).parent
    paths = [*package.glob("checkpoint/*.py"), *package.glob("backends/openvino*.py"), *Path(__file__).parent.glob("*")]
    for path in sorted(path for path in (*paths, Path(__file__).parents[1] / "formats.py") if path.is_file()):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()

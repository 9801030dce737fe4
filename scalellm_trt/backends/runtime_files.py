"""Modules of `runtime/` in, the files that must lie beside it inside tritonserver out."""

from __future__ import annotations

import ast
from pathlib import Path

import scalellm_trt.runtime

RUNTIME_DIR = Path(scalellm_trt.runtime.__file__).parent


def files_behind(*entries: str, directory: Path = RUNTIME_DIR) -> dict[str, Path]:
    """Return the modules `entries` and every sibling that they import relatively, however deep, by file name.

    Imports inside functions and under `TYPE_CHECKING` count too: a file too many does no harm.
    """
    found: dict[str, Path] = {}
    modules = list(entries)
    while modules:
        path = directory / f"{modules.pop()}.py"
        if path.name in found:
            continue
        found[path.name] = path
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
            if isinstance(node, ast.ImportFrom) and node.level == 1:
                modules += [node.module] if node.module else [alias.name for alias in node.names]
    return dict(sorted(found.items()))

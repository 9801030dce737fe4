from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from scalellm_trt.errors import RecipeError
from scalellm_trt.recipe import load

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Write = Callable[..., Path]
    ProblemsOf = Callable[[str | bytes], list[str]]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a file below a fresh current directory and returns its path relative to it."""
    monkeypatch.chdir(tmp_path)

    def write_file(text: str | bytes, name: str = "r.yaml") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path.relative_to(tmp_path)

    return write_file


@pytest.fixture
def problems_of(write: Write) -> ProblemsOf:
    """Returns the rendered problems of a recipe with this text, hints on the lines after."""

    def load_and_fail(text: str | bytes) -> list[str]:
        with pytest.raises(RecipeError) as caught:
            load(write(text))
        return [str(problem) for problem in caught.value.problems]

    return load_and_fail

from __future__ import annotations

import pytest

from scripts.generate_docs import GENERATED, ROOT


@pytest.mark.parametrize("name", GENERATED)
def test_a_generated_file_is_current(name: str) -> None:
    stored = (ROOT / name).read_text(encoding="utf-8")
    assert stored == GENERATED[name](), "run scripts/generate_docs.py"

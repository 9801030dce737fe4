from __future__ import annotations

from typing import TYPE_CHECKING

from scalellm_trt.doctor import look

if TYPE_CHECKING:
    from pathlib import Path


def test_looking_at_a_folder_without_repository_changes_nothing_in_it(tmp_path: Path) -> None:
    around = look(tmp_path / "builds", tmp_path / "triton_repo")
    assert around.num_services is None
    assert around.repository_problems == ()
    assert set(around.ports) == {8000, 8001, 8002}
    assert around.installed["numpy"] is not None
    assert list(tmp_path.iterdir()) == []


def test_a_stray_folder_in_the_repository_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "stray").mkdir()
    assert look(tmp_path, tmp_path).repository_problems

"""repository_check: what would stop a tritonserver is named before it starts."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from scalellm_trt.errors import ArtefactError
from scalellm_trt.triton import repository_check

if TYPE_CHECKING:
    from tests.fakes.publishing_desk import Desk

    pass


def test_the_check_names_missing_and_shortened_files(desk: Desk) -> None:
    desk.publish("1")
    (desk.root / "chat/1/service.json").unlink()
    os.truncate(desk.root / "chat/config.pbtxt", 3)
    with pytest.raises(ArtefactError) as caught:
        repository_check.check(desk.root)
    assert "chat/1/service.json is missing" in str(caught.value)
    assert "chat/config.pbtxt has 3 bytes, published were" in str(caught.value)


@pytest.mark.parametrize("name", [".hidden", "notes"])
def test_the_check_names_a_directory_that_stops_tritonserver(desk: Desk, name: str) -> None:
    desk.publish("1")
    (desk.root / name).mkdir()
    with pytest.raises(ArtefactError, match=f"{name}/ is not a model"):
        repository_check.check(desk.root)


def test_the_check_lets_a_model_of_somebody_else_pass(desk: Desk) -> None:
    desk.publish("1")
    (desk.root / "theirs" / "1").mkdir(parents=True)
    repository_check.check(desk.root)


def test_the_check_refuses_a_missing_and_an_empty_repository(desk: Desk) -> None:
    with pytest.raises(ArtefactError, match="there is no model repository here"):
        repository_check.check(desk.root)
    desk.root.mkdir()
    with pytest.raises(ArtefactError, match="is empty"):
        repository_check.check(desk.root)

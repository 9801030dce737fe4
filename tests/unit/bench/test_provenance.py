from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from scalellm_trt.bench.run import Target
from scalellm_trt.bench.targets import provenance
from scalellm_trt.triton import repository_manifest
from scalellm_trt.triton.repository_manifest import ModelRecord, RepositoryManifest, ServiceRecord, Version

if TYPE_CHECKING:
    from pathlib import Path


def write(root: Path, recipe: str) -> None:
    version = Version(
        recipe=recipe,
        owner_digest="d" * 64,
        engine_digest="e" * 64,
        transaction="t",
        created="2026-11-25T10:00:00+00:00",
        models={"m": ModelRecord(backend="python", inputs=(), outputs=(), files={})},
        toolchain="openvino-2026.4.1",
    )
    service = ServiceRecord(name="s", current=version, previous=None, previous_id=None)
    text = repository_manifest.to_text(RepositoryManifest(services={"s": service}))
    (root / repository_manifest.MANIFEST_NAME).write_text(text)


def target(url: str, model: str = "m") -> Target:
    return Target(name="a", kind="openai", url=url, model=model, streams=True, facts={"api": "chat"})


@pytest.mark.parametrize("url", ["http://127.0.0.1:2345", "http://localhost:8000/v1", "127.0.0.1:8001", "[::1]:8001"])
def test_a_server_of_this_machine_is_known_by_its_repository(tmp_path: Path, url: str) -> None:
    write(tmp_path, "recipes/rtx4090.yaml")
    found = provenance.added(target(url), tmp_path)
    assert found.facts == {
        "api": "chat",
        "recipe": "recipes/rtx4090.yaml",
        "published": "2026-11-25T10:00:00+00:00",
        "manifest_digest": "d" * 64,
        "engine_digest": "e" * 64,
        "toolchain": "openvino-2026.4.1",
    }
    assert found.hardware == "rtx4090"


def test_what_is_elsewhere_or_not_there_stays_unknown(tmp_path: Path) -> None:
    here = target("http://127.0.0.1:2345")
    assert provenance.added(here, tmp_path) == here
    write(tmp_path, str(tmp_path / "gone.yaml"))
    far = target("http://10.0.0.1:2345")
    assert provenance.added(far, tmp_path) == far
    other = target("http://127.0.0.1:2345", "other")
    assert provenance.added(other, tmp_path) == other
    assert provenance.added(here, tmp_path).hardware is None
    (tmp_path / repository_manifest.MANIFEST_NAME).write_text("{")
    assert provenance.added(here, tmp_path) == here

"""The smoke test and the gate's own server, on the real tritonserver and real weights: a good service passes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from scalellm_trt import pipeline
from scalellm_trt.artefacts.stage_cache import StageCache
from scalellm_trt.artefacts.types import Checkpoint
from scalellm_trt.pipeline import gate, smoke
from scalellm_trt.triton import binary
from tests.integration.conftest import RECIPE

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.conftest import Server, Workspace

pytestmark = pytest.mark.integration


def test_a_good_service_passes_and_agrees_with_an_engine_of_its_checkpoint(
    built: Workspace, server: Server, tmp_path: Path
) -> None:
    plan = pipeline.explain(RECIPE, pipeline.Workspace(builds_dir=built.builds, repository_dir=built.repository))
    directory = StageCache(built.builds).current(plan.name, "quantize")
    assert directory is not None
    checkpoint = Checkpoint(directory=directory, digest="d")
    reference = gate._reference(plan, checkpoint, binary.find(), tmp_path)
    service = gate.TextService(url=server.grpc_url, model=plan.name)
    report = smoke.run(service, smoke.limits(), reference=reference, num_places=plan.limits.max_batch_size)
    print(f"agreement {report.agreement:.0%}, {report.seconds_after_cancel:.2f} s after the cancellation")
    assert report.problems == ()
    assert report.agreement is not None
    assert report.agreement >= 0.9
    assert not list((tmp_path / ".cache" / "reference").iterdir())
    shuffled = [reference[-1], *reference[:-1]]
    refused = smoke.run(service, smoke.limits(), reference=shuffled, num_places=1)
    assert "answers agree with the reference engine" in refused.problems[0]

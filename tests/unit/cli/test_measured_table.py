"""`plan` shows what the last server measured beside what the plan says."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from rich.console import Console

from scalellm_trt.cli.measured import show_measured
from scalellm_trt.memory import MemoryBudget, MemoryItem
from scalellm_trt.triton import measured
from tests.fakes.engine_models import gpu_plan

if TYPE_CHECKING:
    from pathlib import Path

GIB = 1 << 30


def shown(builds: Path) -> str:
    budget = MemoryBudget(
        stage="load",
        place="device",
        items=(
            MemoryItem(name="weights: layers", num_bytes=10 * GIB, formula=""),
            MemoryItem(name="KV cache", num_bytes=4 * GIB, formula=""),
        ),
        available_bytes=24 * GIB,
    )
    plan = dataclasses.replace(gpu_plan(), budgets=(budget,))
    on = Console(width=120, record=True, file=None, quiet=True)
    with on.capture() as captured:
        on.quiet = False
        show_measured(plan, builds, on)
    return captured.get()


def test_measured_parts_stand_beside_the_planned_ones(tmp_path: Path) -> None:
    path = tmp_path / "llama" / measured.FILE_NAME
    figures = measured.Measured(engine_bytes=11 * GIB, kv_cache_bytes=4 * GIB, kv_cache_tokens=256)
    measured.write({"llama_engine": figures}, path, tmp_path / "server.log")
    text = shown(tmp_path)
    assert "weights" in text
    assert "11.0 GiB" in text
    assert "+10%" in text
    assert "+0%" in text
    assert "llama_engine 256; planned for each: 256" in text


def test_nothing_is_shown_before_a_server_has_run(tmp_path: Path) -> None:
    assert shown(tmp_path) == ""

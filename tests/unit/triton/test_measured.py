"""What TensorRT-LLM logs while it loads becomes figures beside the plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from scalellm_trt.errors import ArtefactError
from scalellm_trt.memory import MemoryBudget, MemoryItem
from scalellm_trt.triton import measured
from scalellm_trt.triton.measured import Measured

if TYPE_CHECKING:
    from pathlib import Path

MIB, GIB = 1 << 20, 1 << 30
# The example of TensorRT-LLM's docs/source/legacy/reference/memory.md.
LOAD = """[TensorRT-LLM][INFO] Loaded engine size: 6695 MiB
[TensorRT-LLM][INFO] [MemUsageChange] Allocated 1134.01 MiB for execution context memory.
[TensorRT-LLM][INFO] [MS] Number of aux streams is 1
[TensorRT-LLM][INFO] [MemUsageChange] Allocated 43.29 MB GPU memory for runtime buffers.
[TensorRT-LLM][INFO] [MemUsageChange] Allocated 180.30 MB GPU memory for decoder.
[TensorRT-LLM][INFO] Memory usage when calculating max tokens in paged kv cache: total: 79.10 GiB, available: 70.48 GiB
[TensorRT-LLM][INFO] Number of blocks in KV cache primary pool: 4060
[TensorRT-LLM][INFO] Number of tokens per block: 64.
[TensorRT-LLM][INFO] [MemUsageChange] Allocated 63.44 GiB for max tokens in paged KV cache (259840).
"""
EXPECTED = Measured(
    engine_bytes=6695 * MIB,
    execution_context_bytes=round(1134.01 * MIB),
    runtime_buffers_bytes=round(43.29 * MIB),
    decoder_bytes=round(180.30 * MIB),
    kv_cache_bytes=round(63.44 * GIB),
    kv_cache_tokens=259840,
    free_before_kv_cache_bytes=round(70.48 * GIB),
    tokens_per_block=64,
)


def loaded(model: str) -> str:
    return f"I1121 04:02:20.127836 1 model_lifecycle.cc:839] \"successfully loaded '{model}'\"\n"


def test_the_example_of_the_documentation_is_understood() -> None:
    log = f"{LOAD}{loaded('a_engine')}{loaded('a')}"
    assert measured.parse(log.splitlines(), {"a_engine"}) == {"a_engine": EXPECTED}


# What TensorRT-LLM's _torch/pyexecutor/_util.py and its KV-cache manager write.
_PROFILED = "in memory usage profiling"
PYTORCH = f"""[TRT-LLM] [I] Run generation only CUDA graph warmup for batch size=1, draft_len=0
[TensorRT-LLM][INFO] Number of tokens per block: 32.
[TensorRT-LLM][INFO] [MemUsageChange] Allocated 0.56 GiB for max tokens in paged KV cache (8224).
[TRT-LLM] [I] Memory used after loading model weights (inside torch) {_PROFILED}: 12.43 GiB
[TRT-LLM] [I] Memory used after loading model weights (outside torch) {_PROFILED}: 1.07 GiB
[TRT-LLM] [I] Memory dynamically allocated during inference (inside torch) {_PROFILED}: 0.85 GiB
[TRT-LLM] [I] Memory used outside torch (e.g., NCCL and CUDA graphs) {_PROFILED}: 1.10 GiB
[TRT-LLM] [I] Peak memory during memory usage profiling (torch + non-torch): 14.38 GiB, \
available KV cache memory when calculating max tokens: 8.20 GiB, fraction is set 0.95, kv size is 409600.
[TensorRT-LLM][INFO] [MemUsageChange] Allocated 7.81 GiB for max tokens in paged KV cache (20480).
"""


def test_the_pytorch_backend_says_the_same_in_other_words() -> None:
    log = f"{PYTORCH}{loaded('chat')}"
    assert measured.parse(log.splitlines(), {"chat"}) == {
        "chat": Measured(
            engine_bytes=round(12.43 * GIB),
            execution_context_bytes=round(0.85 * GIB),
            kv_cache_bytes=round(7.81 * GIB),
            kv_cache_tokens=20480,
            free_before_kv_cache_bytes=round(8.20 * GIB),
            tokens_per_block=32,
        )
    }


def test_engines_that_load_one_after_the_other_have_their_own_figures() -> None:
    smaller = LOAD.replace(
        "63.44 GiB for max tokens in paged KV cache (259840)", "1.56 GiB for max tokens in paged KV cache (12800)"
    )
    log = f"{LOAD}{loaded('a-1_engine')}{smaller}{loaded('a-2_engine')}"
    found = measured.parse(log.splitlines(), {"a-1_engine", "a-2_engine"})
    assert [each.kv_cache_tokens for each in found.values()] == [259840, 12800]
    assert found["a-2_engine"].kv_cache_bytes == round(1.56 * GIB)


def test_of_several_ranks_the_largest_counts() -> None:
    log = f"{LOAD.replace('6695', '7000')}{LOAD}{loaded('a_engine')}"
    assert measured.parse(log.splitlines(), {"a_engine"})["a_engine"].engine_bytes == 7000 * MIB


def test_a_log_that_says_nothing_gives_nothing() -> None:
    assert measured.parse(loaded("a_engine").splitlines(), {"a_engine"}) == {}
    assert measured.parse(LOAD.splitlines(), {"a_engine"}) == {}


def test_figures_are_kept_with_their_log(tmp_path: Path) -> None:
    path = tmp_path / "llama" / measured.FILE_NAME
    measured.write({"a_engine": EXPECTED, "b_engine": Measured(engine_bytes=5)}, path, tmp_path / "server.log")
    assert measured.read(path) == {"a_engine": EXPECTED, "b_engine": Measured(engine_bytes=5)}
    assert "server.log" in path.read_text()
    assert measured.read(tmp_path / "other" / measured.FILE_NAME) == {}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"models": {"a": 3}}', '{"models": {"a": {"engine_bytes": "x"}}}'])
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / measured.FILE_NAME
    path.write_text(text)
    with pytest.raises(ArtefactError, match=r"measured\.json: cannot be read"):
        measured.read(path)


def test_measured_parts_stand_beside_the_planned_ones_of_all_services() -> None:
    items = {
        "CUDA context": 1,
        "weights: layers": 5 * GIB,
        "weights: scales": GIB,
        "KV cache": 10,
        "decoder (estimate)": 7,
    }
    budget = MemoryBudget(
        stage="load",
        place="device",
        items=tuple(MemoryItem(name=name, num_bytes=size, formula="") for name, size in items.items()),
        available_bytes=24 * GIB,
    )
    models = [Measured(engine_bytes=3 * GIB, kv_cache_bytes=4), Measured(engine_bytes=3 * GIB, kv_cache_bytes=5)]
    assert [(each.name, each.planned_bytes, each.measured_bytes) for each in measured.compare(budget, models)] == [
        ("weights", 6 * GIB, 6 * GIB),
        ("KV cache", 10, 9),
    ]

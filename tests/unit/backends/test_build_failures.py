"""build_failures: words that builders really print, and the cause that a user is told."""

from __future__ import annotations

import signal

import pytest

from scalellm_trt.backends.build_failures import find_cause
from tests.fakes.plans import gpu_plan

PLAN = gpu_plan()
LOGS = {
    "RuntimeError: CUDA out of memory. Tried to allocate 2.00 GiB": "the card ran out of memory",
    "[TRT] [E] 2: OutOfMemory (Could not allocate GPU buffer)": "the card ran out of memory",
    "[TRT-LLM] CUDA runtime error in cudaMalloc(&p, n): out of memory": "the card ran out of memory",
    "torch.OutOfMemoryError: CUDA error": "the card ran out of memory",
    "std::bad_alloc": "the host ran out of memory",
    "numpy._core._exceptions._ArrayMemoryError: MemoryError": "the host ran out of memory",
    "OSError: [Errno 28] No space left on device": "the disk is full",
    "OSError: [Errno 122] Disk quota exceeded: '/x/rank0.engine'": "the disk is full",
    "[TRT-LLM] [E] Unsupported architecture": "is not supported by",
    "RuntimeError: No valid SQ GEMM tactic": "is not supported by",
    "FMHA kernels are not found": "is not supported by",
    "RuntimeError: Required but not provided tensors:{'lm_head.weight'}": "the checkpoint's tensors",
    "trtllm-build: error: unrecognized arguments: --monitor_memory": "is not the version of the toolchain",
    "Version tag does not match. Note: Current Version: 240": "is not the version of the toolchain",
    'could not select device driver "" with capabilities: [[gpu]]': "no usable NVIDIA device",
    "Error: setting up CDI devices: unresolvable CDI devices nvidia.com/gpu=all": "no usable NVIDIA device",
    "RuntimeError: CUDA driver version is insufficient for CUDA runtime version": "no usable NVIDIA device",
}


@pytest.mark.parametrize("line", LOGS)
def test_the_words_of_a_log_give_the_cause(line: str) -> None:
    assert LOGS[line] in find_cause(1, ["[TRT] [I] a line before", line, "a line after"], PLAN).what


@pytest.mark.parametrize(
    ("returncode", "cause"),
    [
        (-signal.SIGKILL, "the host ran out of memory (SIGKILL"),
        (137, "the host ran out of memory (SIGKILL"),
        (-signal.SIGTERM, "somebody stopped it"),
        (-signal.SIGSEGV, "the builder crashed"),
        (139, "the builder crashed"),
        (125, "the container engine could not start the container"),
        (127, "the image has no trtllm-build"),
        (1, "the builder gave up"),
    ],
)
def test_without_words_the_exit_code_gives_it(returncode: int, cause: str) -> None:
    assert cause in find_cause(returncode, ["[TRT] [I] nothing wrong so far"], PLAN).what


def test_every_cause_has_a_next_step_and_a_small_card_is_told_its_limits() -> None:
    for line in LOGS:
        assert find_cause(1, [line], PLAN).next_step.endswith((".", "--container", "doctor"))
    step = find_cause(1, ["CUDA out of memory"], PLAN).next_step
    assert "limits.max_num_tokens (32)" in step
    assert "limits.max_batch_size (4)" in step


def test_a_full_disk_counts_more_than_what_follows_from_it() -> None:
    lines = ["OSError: [Errno 28] No space left on device", "RuntimeError: kernel not found"]
    assert find_cause(1, lines, PLAN).what == "the disk is full"

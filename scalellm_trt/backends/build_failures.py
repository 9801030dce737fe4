"""How a build's command ended in, the cause and the next step out: what a user can do about it, not a traceback."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scalellm_trt.plan import Plan

# 128 + signal is how a shell and a container engine tell that a program was killed.
KILLED: Final = frozenset({-signal.SIGKILL, 128 + signal.SIGKILL})
TERMINATED: Final = frozenset({-signal.SIGTERM, 128 + signal.SIGTERM, -signal.SIGINT, 128 + signal.SIGINT})
CRASHED: Final = frozenset({-signal.SIGSEGV, 128 + signal.SIGSEGV, -signal.SIGABRT, 128 + signal.SIGABRT})
# What docker and podman answer for themselves.
ENGINE_FAILED, NOT_EXECUTABLE, NOT_FOUND = 125, 126, 127

_DEVICE_MEMORY: Final = re.compile(
    r"CUDA out of memory|OutOfMemoryError|out of memory.*(?:cuda|gpu|device)|cudaErrorMemoryAllocation"
    r"|CUDA error 2\b|Cuda failure: out of memory|cudaMalloc\w*.*out of memory|OutOfMemory \(Could not allocate",
    re.IGNORECASE,
)
_HOST_MEMORY: Final = re.compile(r"\bMemoryError\b|std::bad_alloc|Cannot allocate memory", re.IGNORECASE)
_DISK: Final = re.compile(r"No space left on device|ENOSPC|Disk quota exceeded|SafetensorError.*I/O", re.IGNORECASE)
_VERSION: Final = re.compile(
    r"Version tag does not match|version mismatch|deserialize.*version|unexpected keyword argument|Unknown .*quant_algo"
    r"|unrecognized arguments|has no attribute '\w*[qQ]uant",
    re.IGNORECASE,
)
_UNSUPPORTED: Final = re.compile(
    r"not supported on|unsupported (?:data type|architecture|SM)|is not supported for SM|Unsupported architecture"
    r"|no valid (?:\w+ )*tactic|kernels? (?:are |is )?not found|requires? (?:SM|compute capability)"
    r"|not in QUANT_ALGO_LIST",
    re.IGNORECASE,
)
_CHECKPOINT: Final = re.compile(r"Required but not provided tensors|Provided but not required tensors", re.IGNORECASE)
_NO_DEVICE: Final = re.compile(
    r"no CUDA-capable device|CUDA driver version is insufficient|could not select device driver|nvidia-container-cli"
    r"|unresolvable CDI devices|Found no NVIDIA driver|CUDA_ERROR_NO_DEVICE",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """Why a build failed, in one sentence, and what to do about it."""

    what: str
    next_step: str


def find_cause(returncode: int, lines: Sequence[str], plan: Plan) -> Cause:
    """Return the likeliest cause of a failed `trtllm-build`; the text of its log goes before its exit code.

    Args:
        returncode: negative for a signal, as `Popen.returncode`; 0 for a build that ended well and wrote too little.
        lines: the last lines of its log.
        plan: what was being built; its limits are named in the next step.
    """
    text = "\n".join(lines)
    for pattern, cause in (
        (_DISK, _disk()),
        (_NO_DEVICE, _no_device()),
        (_DEVICE_MEMORY, _device_memory(plan)),
        (_CHECKPOINT, _checkpoint(plan)),
        (_VERSION, _version(plan)),
        (_UNSUPPORTED, _unsupported(plan)),
        (_HOST_MEMORY, _host_memory(plan)),
    ):
        if pattern.search(text):
            return cause
    return _from_exit_code(returncode, plan)


def _from_exit_code(returncode: int, plan: Plan) -> Cause:
    if returncode in KILLED:
        return _host_memory(plan, " (SIGKILL: the kernel's out-of-memory killer, or somebody's kill -9)")
    if returncode in TERMINATED:
        return Cause(what="somebody stopped it", next_step="Build again: what is finished is kept.")
    if returncode in CRASHED:
        what = "the builder crashed"
        return Cause(what=what, next_step=f"Check the driver and the card: scalellm-trt doctor --recipe {plan.name}")
    if returncode == ENGINE_FAILED:
        what = "the container engine could not start the container"
        return Cause(what=what, next_step="Its reason is in the lines above; `scalellm-trt doctor` checks it.")
    if returncode in (NOT_EXECUTABLE, NOT_FOUND):
        what = "the image has no trtllm-build that can be executed"
        return Cause(what=what, next_step=f"Use the image of the toolchain {plan.toolchain}.")
    return Cause(what="the builder gave up", next_step="Its reason is in the lines above and in the log.")


def _disk() -> Cause:
    next_step = "Free some space (`scalellm-trt cache prune` removes what no recipe uses), then build again."
    return Cause(what="the disk is full", next_step=next_step)


def _no_device() -> Cause:
    next_step = "Check nvidia-smi, and for --container NVIDIA's container toolkit: scalellm-trt doctor"
    return Cause(what="no usable NVIDIA device was found", next_step=next_step)


def _device_memory(plan: Plan) -> Cause:
    limits = plan.limits
    next_step = (
        "Free the card (nvidia-smi shows who uses it), or lower "
        f"limits.max_num_tokens ({limits.max_num_tokens}) or limits.max_batch_size ({limits.max_batch_size}); "
        "`scalellm-trt plan` shows what the build needs."
    )
    return Cause(what="the card ran out of memory", next_step=next_step)


def _host_memory(plan: Plan, how: str = "") -> Cause:
    next_step = (
        "Free memory or add swap: `scalellm-trt plan` shows what compile needs on the host "
        f"(weights {plan.quantization.weights}). What is finished is kept: build again."
    )
    return Cause(what=f"the host ran out of memory{how}", next_step=next_step)


def _checkpoint(plan: Plan) -> Cause:
    what = f"the checkpoint's tensors are not what {plan.toolchain} loads for {plan.quantization.weights}"
    return Cause(what=what, next_step="Write it again: scalellm-trt build --force quantize. Please report it.")


def _version(plan: Plan) -> Cause:
    what = f"trtllm-build is not the version of the toolchain {plan.toolchain}"
    return Cause(what=what, next_step="Build in its own image: scalellm-trt build --container")


def _unsupported(plan: Plan) -> Cause:
    formats = f"weights {plan.quantization.weights} with KV cache {plan.quantization.kv_cache_dtype}"
    what = f"{formats} is not supported by {plan.toolchain} on this card"
    next_step = "Choose another format: `scalellm-trt plan --suggest` lists those of the card. Please report it."
    return Cause(what=what, next_step=next_step)

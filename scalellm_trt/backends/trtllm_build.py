"""A plan and a toolchain in, the exact argv of `trtllm-build` out; and the room in which its timing cache lives.

Every value that an engine's size or speed depends on is written, defaults too: they change from version to version.
Values: facts of the toolchain's row; which attention kernels are asked for follows the combination's side effects.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from scalellm_trt import facts

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from scalellm_trt.facts import Combination, GpuToolchain
    from scalellm_trt.plan import Plan

PROGRAM: Final = "trtllm-build"
OUTPUT_CACHE_NAME: Final = "model.cache"
SWITCH_DEFAULT: Final = "off"  # what the row says of a flag that takes no value
WORKER_OVERHEAD_BYTES: Final = 4 << 30  # a builder's own process and its log: 1-3 GB, an estimate rounded up


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildPaths:
    """What a build reads and writes.

    Attributes:
        timing_cache: what an earlier build on the same card learnt; None for the first.
    """

    checkpoint_dir: Path
    out_dir: Path
    timing_cache: Path | None


def build_command(plan: Plan, paths: BuildPaths, *, num_workers: int) -> list[str]:
    """Return the argv that compiles `plan`'s checkpoint into one engine per rank.

    Raises:
        AssertionError: our own bug: a flag that the toolchain's trtllm-build does not have.
    """
    toolchain = gpu_toolchain(plan)
    options = {
        "--checkpoint_dir": str(paths.checkpoint_dir),
        "--output_dir": str(paths.out_dir),
        **_limits(plan),
        **(_options_0_13(plan) if toolchain.contract == "0.13" else _options_1_x(plan)),
        **({} if paths.timing_cache is None else {"--input_timing_cache": str(paths.timing_cache)}),
        "--output_timing_cache": str(paths.out_dir / OUTPUT_CACHE_NAME),
        "--workers": str(num_workers),
        "--log_level": "info",
    }
    unknown = [flag for flag in options if flag not in toolchain.build_flags]
    if unknown:
        message = f"{plan.toolchain}'s {PROGRAM} has no {', '.join(unknown)}"
        raise AssertionError(message)
    argv = [PROGRAM]
    for flag, value in options.items():
        argv += [flag, value]
    # It prints what host and device memory the build took; a switch, so it stands alone.
    return [*argv, "--monitor_memory"] if "--monitor_memory" in toolchain.build_flags else argv


def num_workers(plan: Plan, *, checkpoint_bytes: int, host_memory_bytes: int) -> int:
    """Return how many ranks are built at a time: all where the host holds them, at least one.

    Formula: each needs twice its share of the checkpoint and 4 GiB (estimate: int8 copies, constants and the plan).
    """
    per_worker = 2 * checkpoint_bytes // plan.world_size + WORKER_OVERHEAD_BYTES
    return max(1, min(plan.world_size, host_memory_bytes // per_worker))


def timing_cache_path(cache_dir: Path, gpu_name: str, tensorrt: str) -> Path:
    """Return where tactics measured on one kind of card by one TensorRT are kept; others must not read them."""
    card = re.sub(r"[^a-z0-9]+", "-", gpu_name.lower()).strip("-")
    return cache_dir / "timing" / f"{card}-tensorrt-{tensorrt}.cache"


def gpu_toolchain(plan: Plan) -> GpuToolchain:
    """Return the GPU half of the plan's toolchain row.

    Raises:
        AssertionError: our own bug: the plan is not for a GPU.
    """
    row = facts.toolchains()[plan.toolchain]
    if row.gpu is None:
        message = f"{plan.toolchain} is no GPU toolchain"
        raise AssertionError(message)
    return row.gpu


def combination_of(plan: Plan) -> Combination:
    """Return what the rules say about the plan's formats on its card."""
    quantization = plan.quantization
    card = facts.hardware()[plan.hardware].compute_capability
    return facts.combination(plan.backend, plan.toolchain, quantization.weights, quantization.kv_cache_dtype, card)


def _limits(plan: Plan) -> Mapping[str, str]:
    limits = plan.limits
    return {
        "--max_batch_size": str(limits.max_batch_size),
        "--max_input_len": str(limits.max_input_len),
        "--max_seq_len": str(limits.max_seq_len),
        "--max_num_tokens": str(limits.max_num_tokens),
        "--max_beam_width": "1",
        "--kv_cache_type": "paged",
        "--remove_input_padding": "enable",
        "--gpt_attention_plugin": "auto",
    }


def _options_0_13(plan: Plan) -> Mapping[str, str]:
    """Use little: its plugin flags were read from a neighbouring version, and a T4 needs no more."""
    return {
        "--opt_num_tokens": str(plan.limits.max_batch_size),
        "--gemm_plugin": plan.dtype,
        "--context_fmha": _switch(not combination_of(plan).has("unfused_context_attention")),
    }


def _options_1_x(plan: Plan) -> Mapping[str, str]:
    effects, quantization = combination_of(plan), plan.quantization
    is_fused = not effects.has("unfused_context_attention")
    # KV-cache reuse and chunked context both read the cache from context attention: one kernel, one flag.
    is_paged = is_fused and not (effects.has("no_kv_cache_reuse") or effects.has("no_chunked_context"))
    is_fp8_attention = is_paged and quantization.kv_cache_dtype == "fp8" and not effects.has("no_fp8_context_fmha")
    is_fp8 = quantization.weights == "fp8"
    options = {
        "--tokens_per_block": str(plan.serving.tokens_per_block),
        # The plugin is slower than TensorRT's own FP8 kernels; elsewhere only lm_head is left to it.
        "--gemm_plugin": "disable" if is_fp8 else "auto",
        "--context_fmha": _switch(is_fused),
        "--use_paged_context_fmha": _switch(is_paged),
        "--use_fp8_context_fmha": _switch(is_fp8_attention),
        "--multiple_profiles": "enable",
    }
    if plan.spec.num_experts:
        options["--moe_plugin"] = "auto"
    elif is_fp8:
        options["--use_fused_mlp"] = "enable"
    if plan.world_size > 1:
        options["--nccl_plugin"] = "auto"
    return options


def _switch(is_on: bool) -> str:
    return "enable" if is_on else "disable"

"""Run `trtllm-build` for a plan, here or in the toolchain's image: watched, checked, its failures explained."""

from __future__ import annotations

import hashlib
import os
import shutil
from typing import TYPE_CHECKING, Final

from scalellm_trt import detect, facts, process
from scalellm_trt.backends import build_failures, container, engine_files, gpu_machine, image, trtllm_build
from scalellm_trt.checkpoint.tokenizer_files import copy_tokenizer_files
from scalellm_trt.errors import StageError, ToolchainError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from scalellm_trt.artefacts.types import Stamp
    from scalellm_trt.backends.base import Progress
    from scalellm_trt.backends.gpu_machine import GpuMachine
    from scalellm_trt.backends.site import Site
    from scalellm_trt.facts import GpuToolchain
    from scalellm_trt.plan import Plan
    from scalellm_trt.process import Beat, CommandFailedError

BEAT_S: Final = 5.0
NUM_CAUSE_LINES: Final = 200
# Until the builder speaks, the checkpoint is read; native weight-only formats are quantized meanwhile, on one core.
BUILDER_MARK: Final = "[TRT]"
QUANTIZED_ON_LOAD: Final = ("int8_wo", "int4_wo")


def look(site: Site, toolchain: GpuToolchain) -> GpuMachine:
    """Find out what would build: here, or in the image, which is pulled if it is not on this machine.

    Raises:
        ToolchainError: nothing can be found out.
    """
    log = fresh_log(site, "probe")
    if site.container is None:
        return gpu_machine.look(lambda argv, _: list(argv), image=None, python=shutil.which("python3") or "", log=log)
    return image.look(site.container, toolchain, log)


def command(plan: Plan, site: Site, checkpoint_dir: Path, out_dir: Path, gpu_name: str) -> list[str]:
    """Return the whole argv that compiles: `trtllm-build`, in its container where the site has one.

    Args:
        plan: what to build.
        site: where.
        checkpoint_dir: read.
        out_dir: written.
        gpu_name: whose timing cache is read, if there is one.
    """
    toolchain = trtllm_build.gpu_toolchain(plan)
    cache = trtllm_build.timing_cache_path(site.cache_dir.absolute(), gpu_name, toolchain.tensorrt)
    paths = trtllm_build.BuildPaths(
        checkpoint_dir=checkpoint_dir.absolute(),
        out_dir=out_dir.absolute(),
        timing_cache=cache if cache.is_file() else None,
    )
    workers = trtllm_build.num_workers(
        plan, checkpoint_bytes=_checkpoint_bytes(plan), host_memory_bytes=detect.machine().memory_total_bytes
    )
    argv = trtllm_build.build_command(plan, paths, num_workers=workers)
    if site.container is None:
        return argv
    mounts = [container.Mount(path=paths.checkpoint_dir), container.Mount(path=paths.out_dir, is_read_only=False)]
    if paths.timing_cache is not None:
        mounts.append(container.Mount(path=paths.timing_cache))
    chosen = image.choose(site.container, toolchain)
    run = image.run_of(chosen, argv, mounts, name=container_name(out_dir), workdir=paths.out_dir)
    return container.run_command(site.container, run)


def compile_engine(plan: Plan, site: Site, checkpoint_dir: Path, out_dir: Path, progress: Progress) -> Stamp:
    """Write `plan`'s engine into `out_dir` and return the stamp of what built it.

    Raises:
        ToolchainError: versions or card are not the plan's.
        StageError: the build failed or wrote too little; with cause, next step and the log's path.
    """
    toolchain = trtllm_build.gpu_toolchain(plan)
    progress("look at card and toolchain", 0.01)
    found = look(site, toolchain)
    if wrong := gpu_machine.problems(found, toolchain, facts.hardware()[plan.hardware]):
        message = f"{plan.toolchain}: {'; '.join(wrong)}"
        raise ToolchainError(message, hint="See what is missing: scalellm-trt doctor")
    argv = command(plan, site, checkpoint_dir, out_dir, found.cards[0].name)
    log = fresh_log(site, "compile")
    if site.container is not None:
        image.remove(site.container, container_name(out_dir))
    try:
        process.run(argv, log=log, on_beat=_Reporter(plan, site, out_dir, log, progress), beat_s=BEAT_S)
    except process.CommandFailedError as error:
        raise _explained(error, plan) from error
    finally:
        if site.container is not None:
            image.remove(site.container, container_name(out_dir))
    _check(plan, toolchain, out_dir, log)
    _keep_timing_cache(out_dir, trtllm_build.timing_cache_path(site.cache_dir, found.cards[0].name, toolchain.tensorrt))
    copy_tokenizer_files(checkpoint_dir, out_dir)
    return gpu_machine.stamp(found, toolchain)


def container_name(out_dir: Path) -> str:
    """Return a name by which a later build finds the container of an earlier one that wrote to the same place."""
    return f"scalellm-{hashlib.sha256(os.fsencode(out_dir.absolute())).hexdigest()[:12]}"


def fresh_log(site: Site, name: str) -> Path:
    """Return the path of a new log; the one before is kept as NAME.log.1."""
    log = site.logs_dir / f"{name}.log"
    if log.is_file():
        log.replace(log.with_name(f"{log.name}.1"))
    return log


def phase(lines: Sequence[str], weights: str) -> str:
    """Say what `trtllm-build` is doing, from the last lines of its log."""
    if any(BUILDER_MARK in line for line in lines):
        return "building the engine"
    return "quantizing weights on the CPU" if weights in QUANTIZED_ON_LOAD else "reading the checkpoint"


class _Reporter:
    """Turns signs of life into a line: phase, elapsed time, host and device memory."""

    def __init__(self, plan: Plan, site: Site, out_dir: Path, log: Path, progress: Progress) -> None:
        self._weights = plan.quantization.weights
        self._engine = site.container
        self._name = container_name(out_dir)
        self._log = log
        self._progress = progress

    def __call__(self, beat: Beat) -> None:
        minutes, seconds = divmod(int(beat.elapsed_s), 60)
        doing = phase(process.tail(self._log, NUM_CAUSE_LINES), self._weights)
        host = f"host {self._resident_bytes(beat) / (1 << 30):.1f} GiB"
        device = gpu_machine.used_device_memory()
        memory = host if device is None else f"{host}, device {device}"
        # How long it will take is not known; the bar creeps towards its end so that it never stands still.
        share = 0.02 + 0.9 * (1 - 1 / (1 + beat.elapsed_s / 300))
        self._progress(f"{doing}: {minutes}:{seconds:02d}, {memory}", share)

    def _resident_bytes(self, beat: Beat) -> int:
        """Return what the build holds; in a container it is no child of ours."""
        if self._engine is None:
            return beat.rss_bytes
        try:
            top = process.output(
                container.processes_command(self._engine, self._name), timeout_s=image.CONTAINER_TIMEOUT_S
            )
        except (StageError, ToolchainError):
            return beat.rss_bytes
        return container.resident_bytes(top)


def _explained(error: CommandFailedError, plan: Plan) -> StageError:
    cause = build_failures.find_cause(error.returncode, process.tail(error.log, NUM_CAUSE_LINES), plan)
    return StageError(f"compile: {cause.what}\n  {error.message}", hint=f"{cause.next_step}\n  Log: {error.log}")


def _check(plan: Plan, toolchain: GpuToolchain, out_dir: Path, log: Path) -> None:
    wrong = engine_files.problems(out_dir, plan, toolchain.tensorrt_llm)
    if not wrong:
        return
    lines = process.tail(log, NUM_CAUSE_LINES)
    cause = build_failures.find_cause(0, lines, plan)
    shown = "".join(f"\n  | {line}" for line in lines[-process.NUM_TAIL_LINES :])
    message = f"compile: trtllm-build ended well, but {'; '.join(wrong)}: {cause.what}{shown}"
    raise StageError(message, hint=f"{cause.next_step}\n  Log: {log}")


def _keep_timing_cache(out_dir: Path, kept: Path) -> None:
    """Move what this build learnt to where the next one on this kind of card finds it; it is no part of the engine."""
    written = out_dir / trtllm_build.OUTPUT_CACHE_NAME
    if not written.is_file():
        return
    kept.parent.mkdir(parents=True, exist_ok=True)
    partial = kept.with_name(f".{kept.name}.{os.getpid()}.partial")
    shutil.copyfile(written, partial)
    partial.replace(kept)
    written.unlink()


def _checkpoint_bytes(plan: Plan) -> int:
    """Return about what all ranks of the checkpoint hold: native weight-only formats keep 16-bit weights in it."""
    bits = {"fp8": 8, "int8_sq": 8, "int4_awq": 4.5, "w4a8_awq": 4.5, "nvfp4": 4.5}.get(plan.quantization.weights, 16)
    return int(plan.spec.num_linear_parameters * bits / 8)

"""Judge the surroundings by what was asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scalellm_trt import facts
from scalellm_trt.doctor import checks, gpu_checks, image_checks
from scalellm_trt.doctor.checks import Check
from scalellm_trt.errors import ToolchainError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from scalellm_trt.doctor.gpu_task import GpuTask
    from scalellm_trt.doctor.question import Question
    from scalellm_trt.doctor.surroundings import GpuSurroundings, Surroundings
    from scalellm_trt.facts import Toolchain
    from scalellm_trt.recipe import Recipe

EXIT_TOOLCHAIN = ToolchainError.exit_code


def examine(around: Surroundings, question: Question) -> tuple[Check, ...]:
    """Return every check of what was asked, general ones last."""
    found: list[Check] = []
    if question.task is not None and around.gpu is not None:
        found += _gpu_checks(around, around.gpu, question.task)
    if question.task is None or question.has_host:
        found += _host_checks(around, question.recipe)
    return (*found, checks.ports(around), checks.repository(around))


def exit_code(found: Sequence[Check]) -> int:
    """Return 4 where a failure stops everything, or every backend that was judged; else 0."""
    failed = {check.backend for check in found if check.status == "fail"}
    judged = {check.backend for check in found if check.backend is not None}
    return EXIT_TOOLCHAIN if None in failed or (judged and judged <= failed) else 0


def _host_checks(around: Surroundings, recipe: Recipe | None) -> Iterator[Check]:
    yield checks.memory(around.machine)
    yield checks.disk(around.machine)
    toolchains = _toolchains(recipe)
    for toolchain in toolchains:
        yield from _toolchain_checks(around, toolchain, recipe)
    if recipe is not None and not toolchains:
        yield _no_toolchain(recipe)
    if around.gpu is None:
        yield checks.gpu(around)
        yield checks.container_engine(around)


def _gpu_checks(around: Surroundings, gpu: GpuSurroundings, task: GpuTask) -> Iterator[Check]:
    machine, found = around.machine, gpu.installation
    yield checks.architecture(machine, task.toolchain)
    yield gpu_checks.cards(machine, task)
    if machine.gpus:
        yield gpu_checks.driver(machine.gpus[0], task)
    if found.is_there:
        yield from image_checks.inside(found, task)
        pull_bytes = 0
    else:
        yield from image_checks.on_the_host(gpu.containers, task)
        pull_bytes = image_checks.pull_bytes(gpu.containers, task)
    yield from filter(None, [gpu_checks.plan(task), gpu_checks.calibration(task)])
    yield from filter(None, [gpu_checks.model_access(gpu.has_hf_token, task)])
    if machine.gpus:
        yield gpu_checks.device_memory(machine.gpus[: task.world_size], task)
    yield gpu_checks.host_memory(machine, task)
    yield gpu_checks.disk(machine, task, pull_bytes)
    for service, stamp in gpu.stamps.items():
        yield gpu_checks.stamp(service, stamp, machine, found, task)


def _toolchains(recipe: Recipe | None) -> list[Toolchain]:
    rows = facts.toolchains()
    if recipe is None:
        return [row for row in rows.values() if row.host]
    row = facts.default_toolchain(recipe.backend) if recipe.toolchain is None else rows.get(recipe.toolchain)
    return [] if row is None or row.host is None else [row]


def _toolchain_checks(around: Surroundings, toolchain: Toolchain, recipe: Recipe | None) -> Iterator[Check]:
    machine = around.machine
    yield checks.architecture(machine, toolchain)
    yield checks.python_version(machine, toolchain)
    yield checks.libpython(machine, toolchain)
    yield checks.glibc(machine, toolchain)
    yield checks.processor(machine, toolchain)
    for name in checks.host_of(toolchain).packages:
        yield checks.package(name, around.installed.get(name), toolchain)
    yield checks.quantize_packages(around, toolchain, is_needed=_is_calibrated(recipe))
    yield checks.tritonserver(around, toolchain)


def _is_calibrated(recipe: Recipe | None) -> bool:
    if recipe is None:
        return False
    row = facts.weight_formats().get(f"{recipe.backend}/{recipe.quantization.weights}")
    return row is not None and row.is_calibrated


def _no_toolchain(recipe: Recipe) -> Check:
    known = ", ".join(facts.toolchains())
    return Check(
        name="toolchain",
        status="fail",
        found=recipe.toolchain or f"none for {recipe.backend}",
        needed=f"one of {known}",
        fix="Use a backend that this version builds for.",
        backend=recipe.backend,
    )

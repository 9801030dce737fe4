"""Judge the surroundings, for every toolchain or for one recipe's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scalellm_trt import facts
from scalellm_trt.doctor import checks
from scalellm_trt.doctor.checks import Check
from scalellm_trt.errors import ToolchainError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from scalellm_trt.doctor.surroundings import Surroundings
    from scalellm_trt.facts import Toolchain
    from scalellm_trt.recipe import Recipe

EXIT_TOOLCHAIN = ToolchainError.exit_code


def examine(around: Surroundings, recipe: Recipe | None = None) -> tuple[Check, ...]:
    """Return every check, general ones first; with a recipe only its own toolchain is judged."""
    found = [checks.memory(around.machine), checks.disk(around.machine)]
    for toolchain in _toolchains(recipe):
        found += _toolchain_checks(around, toolchain, recipe)
    if recipe is not None and not _toolchains(recipe):
        found.append(_no_toolchain(recipe))
    found += [checks.gpu(around), checks.container_engine(around), checks.ports(around), checks.repository(around)]
    return tuple(found)


def exit_code(found: Sequence[Check], recipe: Recipe | None = None) -> int:
    """Return 4 where a failure stops the recipe's backend, or without a recipe every backend; else 0."""
    failed = {check.backend for check in found if check.status == "fail"}
    if None in failed:
        return EXIT_TOOLCHAIN
    wanted = (
        {recipe.backend} if recipe is not None else {row.backend for row in facts.toolchains().values() if row.host}
    )
    return EXIT_TOOLCHAIN if wanted and wanted <= failed else 0


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

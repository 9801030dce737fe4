"""What `serve` does around the server itself: engines are found where they lie, started as they must be, measured."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

from scalellm_trt.detect import nvidia
from scalellm_trt.errors import ToolchainError
from scalellm_trt.triton import launch, measured, published_engines, repository, server_image

if TYPE_CHECKING:
    from pathlib import Path

    from scalellm_trt.triton.binary import ServerBinary
    from scalellm_trt.triton.launch import Launch
    from scalellm_trt.triton.published_engines import PublishedEngine
    from scalellm_trt.triton.server_command import ServerOptions


def prepare(
    binary: ServerBinary, options: ServerOptions, *, state_dir: Path, wants_orchestrator: bool
) -> tuple[tuple[PublishedEngine, ...], Launch]:
    """Make the repository fit to be served from where it lies now, and decide how.

    Returns:
        The engines on GPUs, and the command.

    Raises:
        ArtefactError, StageError: the repository cannot be read, or not be corrected.
        UnsupportedError: one server cannot serve these engines together.
        ToolchainError: mpirun is missing, or GPUs are.
    """
    root = options.repository
    repository.recover(root, state_dir)
    repository.resolve_paths(root, state_dir)
    engines = published_engines.find(root)
    mode = launch.choose_mode(engines, wants_orchestrator=wants_orchestrator)
    num_gpus = len(nvidia.look().gpus) if engines else 0
    num_ranks = max((engine.world_size for engine in engines), default=1)
    if 0 < num_gpus < num_ranks:
        message = f"{num_gpus} GPUs are fewer than the {num_ranks} ranks of an engine of {root}"
        raise ToolchainError(message, hint="Serve it on a machine with more, or build with a smaller parallel.tp_size.")
    if binary.image is not None:
        placed = replace(options, repository=root.resolve())
        inside = launch.plan(binary, placed, engines, mode, num_gpus=num_gpus)
        return engines, server_image.contain(inside, binary.image, placed)
    planned = launch.plan(binary, options, engines, mode, num_gpus=num_gpus)
    if shutil.which(planned.program) is None:
        message = f"{planned.program} is not on the PATH; {mode} mode starts tritonserver under it"
        raise ToolchainError(message, hint="The toolchain's image has it: scalellm-trt serve --container")
    return engines, planned


def record(engines: tuple[PublishedEngine, ...], log: Path, builds_dir: Path) -> list[Path]:
    """Keep what the log of a server that is ready says of its engines, one file for each service.

    Returns:
        The files that were written; none for engines that log nothing.
    """
    with log.open(encoding="utf-8", errors="replace") as lines:
        found = measured.parse(lines, {engine.model for engine in engines})
    written = []
    for service in sorted({engine.service for engine in engines}):
        models = [engine.model for engine in engines if engine.service == service and engine.model in found]
        if models:
            path = builds_dir / service / measured.FILE_NAME
            measured.write({name: found[name] for name in models}, path, log)
            written.append(path)
    return written

"""A toolchain's image on this machine: which one to take, what is in it, a run of a command in it, and its end."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from scalellm_trt import process
from scalellm_trt.backends import container, gpu_machine
from scalellm_trt.errors import StageError, ToolchainError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from scalellm_trt.backends.container import EngineName
    from scalellm_trt.backends.gpu_machine import GpuMachine
    from scalellm_trt.facts import GpuToolchain

CONTAINER_TIMEOUT_S: Final = 30.0


def choose(engine: EngineName, toolchain: GpuToolchain) -> str:
    """Return the pinned image, or where it is not on this machine another whose engines are the same and that is."""
    for image in dict.fromkeys((toolchain.image, *toolchain.stamp_class)):
        try:
            process.output(container.inspect_command(engine, image), timeout_s=CONTAINER_TIMEOUT_S)
        except StageError:
            continue
        except ToolchainError:
            break
        return image
    return toolchain.image


def look(engine: EngineName, toolchain: GpuToolchain, log: Path) -> GpuMachine:
    """Find out what is in the image, and which cards it sees; an image that is not on this machine is pulled.

    Raises:
        ToolchainError: nothing can be found out.
    """
    image = choose(engine, toolchain)

    def wrap(argv: Sequence[str], out_dir: Path) -> list[str]:
        mounts = [container.Mount(path=gpu_machine.PROBE), container.Mount(path=out_dir, is_read_only=False)]
        run = run_of(image, argv, mounts, name=f"scalellm-probe-{os.getpid()}", pull="missing")
        return container.run_command(engine, run)

    return gpu_machine.look(wrap, image=image, python="python3", log=log)


def run_of(
    image: str,
    argv: Sequence[str],
    mounts: Sequence[container.Mount],
    *,
    name: str,
    pull: container.Pull = "never",
    workdir: Path | None = None,
    env: Mapping[str, str] | None = None,
    has_network: bool = False,
) -> container.ContainerRun:
    """Return a run as the caller, who may have chosen cards by CUDA_VISIBLE_DEVICES."""
    chosen = os.environ.get(gpu_machine.CUDA_DEVICES)
    return container.ContainerRun(
        image=image,
        name=name,
        argv=argv,
        mounts=mounts,
        user_id=os.getuid(),
        group_id=os.getgid(),
        pull=pull,
        workdir=workdir,
        env={**({} if chosen is None else {gpu_machine.CUDA_DEVICES: chosen}), **(env or {})},
        has_network=has_network,
    )


def remove(engine: EngineName, name: str) -> None:
    """End what an earlier or interrupted run left; usually there is nothing."""
    try:
        process.output(container.remove_command(engine, name), timeout_s=CONTAINER_TIMEOUT_S)
    except (StageError, ToolchainError):
        return

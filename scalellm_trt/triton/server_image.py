"""The tritonserver of a toolchain's image: which image a repository wants, whether it can run here, and its argv.

The container has the host's network and the server the addresses it would have outside, 127.0.0.1 unless told
otherwise. Published ports are a firewall rule instead, by which docker before 28 let neighbours in the same network
reach a port of 127.0.0.1; and the server would have to listen to everybody inside.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from scalellm_trt import facts
from scalellm_trt.backends import container, gpu_machine, image
from scalellm_trt.detect import nvidia
from scalellm_trt.errors import Problem, ToolchainError, UnsupportedError
from scalellm_trt.triton import repository_manifest, stamp_check
from scalellm_trt.triton.binary import PROGRAM_NAME, ServerBinary

if TYPE_CHECKING:
    from scalellm_trt.backends.container import EngineName
    from scalellm_trt.facts import GpuToolchain
    from scalellm_trt.triton.launch import Launch
    from scalellm_trt.triton.server_command import ServerOptions

KEY: Final = "--container"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerImage:
    """Where a tritonserver is that is not installed here."""

    engine: EngineName
    image: str


def binary_of(engine: EngineName, image_name: str) -> ServerBinary:
    """Return the server of an image; its argv is inside the container."""
    return ServerBinary(
        executable=Path(PROGRAM_NAME), origin="image", image=ServerImage(engine=engine, image=image_name)
    )


def contain(planned: Launch, where: ServerImage, options: ServerOptions) -> Launch:
    """Return the launch of `planned` inside a container that sees the repository, read-only, and all cards.

    Args:
        planned: its argv names `options.repository`, an absolute path, as it is inside too.
        where: the engine and the image.
        options: its shared memory's name, which no other server has, becomes the container's.
    """
    name = container_name(options.shm_prefix)
    mounts = [container.Mount(path=options.repository)]
    run = image.run_of(where.image, planned.argv, mounts, name=name, pull="missing", env=planned.env, has_network=True)
    return replace(
        planned,
        argv=tuple(container.run_command(where.engine, run)),
        env={},
        last=tuple(container.remove_command(where.engine, name)),
    )


def container_name(shm_prefix: str) -> str:
    """Return the name of a server's container: never that of another server, whose container would be ended."""
    return f"scalellm-serve-{shm_prefix.removeprefix('scalellm_').strip('_')}"


def find(root: Path, engine: EngineName, log: Path) -> ServerBinary:
    """Return the server that the repository's services were built for; an image that is missing is pulled.

    Raises:
        ArtefactError: the repository cannot be read, or an engine is for another card.
        UnsupportedError: no one image serves all of its services.
        ToolchainError: there is no card or too old a driver here, or the image has other versions.
    """
    toolchain = toolchain_of(root)
    here = nvidia.look()
    if not here.gpus:
        message = f"{KEY}: {here.problem or 'there is no NVIDIA driver: nvidia-smi was not found'}"
        raise ToolchainError(message, hint="What this machine has: scalellm-trt doctor")
    if old := gpu_machine.driver_problems(here.gpus[0].driver_version, toolchain):
        message = f"{KEY}: {'; '.join(old)}"
        raise ToolchainError(message, hint="Update the driver, then: scalellm-trt doctor")
    stamp_check.check_cards(root, gpu_machine.visible(here.gpus))
    found = image.look(engine, toolchain, log)
    stamp_check.check(root, lambda: found)
    if not found.cards:
        message = f"{KEY}: a container of {found.image} sees no card"
        hint = "NVIDIA's container toolkit gives it to containers; what is missing: scalellm-trt doctor"
        raise ToolchainError(message, hint=hint)
    return binary_of(engine, found.image or toolchain.image)


def toolchain_of(root: Path) -> GpuToolchain:
    """Return the toolchain whose image serves every service of the repository.

    Raises:
        ArtefactError: the repository cannot be read.
        UnsupportedError: there is none.
    """
    records = repository_manifest.read(root).services.values()
    rows = {record.name: facts.toolchains().get(record.current.toolchain or "") for record in records}
    found = {name: row.gpu for name, row in rows.items() if row is not None and row.gpu is not None}
    without = [name for name in rows if name not in found]
    if without or not found:
        what = f"{', '.join(without)}: not built for an image" if without else f"{root} has no service"
        raise _refused(what, "Leave the option out, or serve them from a repository of their own: --repository.")
    if len({gpu.image for gpu in found.values()}) > 1:
        listed = ", ".join(f"{name} ({gpu.image})" for name, gpu in found.items())
        message = f"{listed}: no one image serves them"
        raise _refused(message, "Give each a repository of its own: --repository.")
    gpu = next(iter(found.values()))
    if not gpu.has_tritonserver:
        message = f"{gpu.image} has no tritonserver: {gpu.image_note}"
        raise _refused(message, "Serve inside an image that has both.")
    return gpu


def _refused(message: str, hint: str) -> UnsupportedError:
    return UnsupportedError([Problem(key=KEY, message=message, hint=hint)])

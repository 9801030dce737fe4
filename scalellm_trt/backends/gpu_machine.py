"""What can build and load engines here, or in an image: found by `toolchain_probe`, judged against a plan, stamped."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from packaging.version import InvalidVersion, Version

from scalellm_trt import process
from scalellm_trt.artefacts.types import Stamp
from scalellm_trt.detect import nvidia
from scalellm_trt.errors import StageError, ToolchainError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from scalellm_trt.detect import Gpu
    from scalellm_trt.facts import GpuToolchain, Hardware

PROBE: Final = Path(__file__).with_name("toolchain_probe.py")
PROBE_TIMEOUT_S: Final = 7200.0  # the first one in an image may have to pull 14 GB
GIB: Final = 1 << 30
CUDA_DEVICES: Final = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuMachine:
    """What was found. Versions are None where the package is not installed.

    Attributes:
        cards: the driver in them is the host's, also when seen from inside a container.
        trtllm_build: path of the program.
        image: the container image that was looked into; None outside.
    """

    cards: tuple[Gpu, ...]
    tensorrt: str | None
    tensorrt_llm: str | None
    trtllm_build: str | None
    image: str | None


def look(wrap: Callable[[Sequence[str], Path], list[str]], *, image: str | None, python: str, log: Path) -> GpuMachine:
    """Run the probe and read what it found.

    Args:
        wrap: given an argv and the directory that it writes to, returns the argv to run (in a container, say).
        image: what `wrap` runs it in.
        python: the interpreter that starts it.
        log: gets the command and its output.

    Raises:
        ToolchainError: it cannot be run.
    """
    with tempfile.TemporaryDirectory(prefix="scalellm-probe-") as folder:
        out = Path(folder) / "probe.json"
        argv = wrap([python, str(PROBE), str(out), ",".join(nvidia.FIELDS)], Path(folder))
        try:
            process.run(argv, log=log, timeout_s=PROBE_TIMEOUT_S)
            return parse(out.read_text(encoding="utf-8"), image=image)
        except (StageError, OSError, ValueError, KeyError, TypeError) as error:
            where = f"inside {image}" if image else "here"
            message = f"it cannot be found out what can build engines {where}: {error}"
            raise ToolchainError(message, hint=f"Log: {log}") from error


def parse(text: str, *, image: str | None) -> GpuMachine:
    """Turn the probe's JSON into values; CUDA_VISIBLE_DEVICES, where it lists numbers, picks and orders the cards."""
    raw = json.loads(text)
    packages: Mapping[str, str | None] = raw["packages"]
    cards = nvidia.parse(raw["cards"]).gpus
    return GpuMachine(
        cards=visible(cards),
        tensorrt=packages["tensorrt"],
        tensorrt_llm=packages["tensorrt_llm"],
        trtllm_build=raw["trtllm_build"],
        image=image,
    )


def visible(cards: Sequence[Gpu]) -> tuple[Gpu, ...]:
    """Return the cards that a program started here may use, in its order."""
    return tuple(cards[index] for index in _visible(len(cards), os.environ.get(CUDA_DEVICES)))


def problems(found: GpuMachine, toolchain: GpuToolchain, hardware: Hardware) -> list[str]:
    """Say why engines for `hardware` cannot be built by what was found; nothing when they can."""
    wrong = []
    if found.trtllm_build is None and toolchain.has_compile:
        wrong.append("there is no trtllm-build on the PATH")
    for name, version, wanted in (
        ("tensorrt_llm", found.tensorrt_llm, toolchain.tensorrt_llm),
        ("tensorrt", found.tensorrt, toolchain.tensorrt),
    ):
        if version is None:
            wrong.append(f"{name} is not installed, the toolchain has {wanted}")
        elif not same_release(version, wanted):
            wrong.append(f"{name} is {version}, the toolchain has {wanted}")
    if not found.cards:
        return [*wrong, "nvidia-smi shows no card"]
    card = found.cards[0]
    if card.compute_capability != hardware.compute_capability:
        wrong.append(
            f"the first card is {card.name} (compute capability {card.compute_capability}), the recipe is for "
            f"{hardware.name} ({hardware.compute_capability}): engines load on the kind of card that built them"
        )
    return [*wrong, *driver_problems(card.driver_version, toolchain)]


def driver_problems(driver: str, toolchain: GpuToolchain) -> list[str]:
    """Say why a driver cannot run the toolchain; nothing when it can, or when its version cannot be read."""
    try:
        is_old = Version(driver) < Version(toolchain.driver_floor)
    except InvalidVersion:
        return []
    return [f"the NVIDIA driver is {driver}, the toolchain needs {toolchain.driver_floor} or later"] if is_old else []


def stamp(found: GpuMachine, toolchain: GpuToolchain) -> Stamp:
    """Return the stamp of an engine that was built on the first card of what was found.

    Raises:
        StageError: something that belongs into a stamp was not found.
    """
    if not found.cards or found.tensorrt is None or found.tensorrt_llm is None:
        message = "the card and the versions that built the engine cannot be read any more"
        raise StageError(message, hint="Check nvidia-smi, then build again.")
    return Stamp(
        gpu_name=found.cards[0].name,
        compute_capability=found.cards[0].compute_capability,
        tensorrt=found.tensorrt,
        tensorrt_llm=found.tensorrt_llm,
        driver_floor=toolchain.driver_floor,
        image=found.image,
    )


def used_device_memory() -> str | None:
    """Say how much of the first card is in use; None where nvidia-smi cannot tell."""
    cards = nvidia.look().gpus
    if not cards:
        return None
    used = cards[0].memory_bytes - cards[0].memory_free_bytes
    return f"{used / GIB:.1f} of {cards[0].memory_bytes / GIB:.1f} GiB"


def same_release(found: str, wanted: str) -> bool:
    """Tell whether two versions agree as far as both go: 10.4.0.26 is a 10.4.0; local labels do not count."""
    try:
        pair = [Version(text).release for text in (found, wanted)]
    except InvalidVersion:
        return found == wanted
    length = min(map(len, pair))
    return pair[0][:length] == pair[1][:length] and _stage(found) == _stage(wanted)


def _stage(version: str) -> tuple[tuple[str, int] | None, int | None]:
    return Version(version).pre, Version(version).dev


def _visible(count: int, listed: str | None) -> list[int]:
    wanted = [word.strip() for word in (listed or "").split(",") if word.strip()]
    if not wanted or not all(word.isdecimal() for word in wanted):
        return list(range(count))
    return [int(word) for word in wanted if int(word) < count]

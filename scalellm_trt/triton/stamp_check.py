"""Would the engines of a repository load here? Their stamps against the card and versions at hand, before any start."""

from __future__ import annotations

import shlex
import shutil
from typing import TYPE_CHECKING

from scalellm_trt.backends import gpu_machine
from scalellm_trt.errors import ArtefactError, ToolchainError
from scalellm_trt.triton import repository_manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from scalellm_trt.artefacts.types import Stamp
    from scalellm_trt.backends.gpu_machine import GpuMachine
    from scalellm_trt.detect import Gpu


def check(root: Path, look: Callable[[], GpuMachine]) -> None:
    """Refuse engines that would not load; `look` is called only where there are stamped ones.

    Raises:
        ArtefactError: an engine is for another card; with the command that builds it anew.
        ToolchainError: the versions at hand are not the engine's; with the image that has them.
    """
    stamped = _stamped(root)
    if not stamped:
        return
    found = look()
    for service, (stamp, recipe) in stamped.items():
        if wrong := version_problems(stamp, found):
            image = f"scalellm-trt serve --container, or inside {stamp.image}, or " if stamp.image else ""
            hint = f"To serve it: {image}build it with the toolchain at hand: {_rebuild(recipe)}"
            message = f"{service}: its engine cannot be loaded here: {'; '.join(wrong)}"
            raise ToolchainError(message, hint=hint)
    check_cards(root, found.cards)


def check_cards(root: Path, cards: Sequence[Gpu]) -> None:
    """Refuse engines that another kind of card than the first one here built.

    Raises:
        ArtefactError: there is one; with the command that builds it anew.
    """
    for service, (stamp, recipe) in _stamped(root).items():
        if wrong := card_problems(stamp, cards):
            message = f"{service}: its engine cannot be loaded here: {'; '.join(wrong)}"
            raise ArtefactError(message, hint=f"Build it for this card: {_rebuild(recipe)}")


def local_machine(log: Path) -> GpuMachine:
    """Return what a tritonserver of this PATH would load engines with.

    Raises:
        ToolchainError: nothing can be found out.
    """
    python = shutil.which("python3") or "python3"
    return gpu_machine.look(lambda argv, _: list(argv), image=None, python=python, log=log)


def version_problems(stamp: Stamp, found: GpuMachine, place: str = "here") -> list[str]:
    """Say which versions differ: an engine loads only with exactly those that built it; `place` says whose they are."""
    return [
        f"{name} {place} is {version or 'not installed'}, the engine was built with {wanted}"
        for name, version, wanted in (
            ("TensorRT-LLM", found.tensorrt_llm, stamp.tensorrt_llm),
            ("TensorRT", found.tensorrt, stamp.tensorrt),
        )
        if version is None or not gpu_machine.same_release(version, wanted)
    ]


def card_problems(stamp: Stamp, cards: Sequence[Gpu]) -> list[str]:
    """Say why the first card cannot load the engine: its kernels are compiled and chosen for one kind of card."""
    if not cards:
        return [f"there is no card, the engine was built on {stamp.gpu_name}"]
    card = cards[0]
    if (card.name, card.compute_capability) == (stamp.gpu_name, stamp.compute_capability):
        return []
    here = f"{card.name} (compute capability {card.compute_capability})"
    return [f"the card is {here}, the engine was built on {stamp.gpu_name} ({stamp.compute_capability})"]


def _stamped(root: Path) -> Mapping[str, tuple[Stamp, str]]:
    """Return stamp and recipe of each service that has a stamp."""
    return {
        record.name: (record.current.stamp, record.current.recipe)
        for record in repository_manifest.read(root).services.values()
        if record.current.stamp is not None
    }


def _rebuild(recipe: str) -> str:
    return f"scalellm-trt build {shlex.quote(recipe)} --force compile"
